//! Client and server machine against each other: no sockets, time moved by hand, the octets cut wherever a network might.

mod acks;
mod cuts;
mod endings;
mod pair;
mod rules;
mod time;
mod violations;
mod wakers;
