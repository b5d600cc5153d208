//! What is in memory, and who waits for what. No actor in it.
