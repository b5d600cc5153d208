//! What the operating system and the machine give, behind traits.
