//! Files and settings that cannot be used, found before anybody connects.
