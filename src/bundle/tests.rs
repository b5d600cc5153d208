//! What a bundle does as a whole: written, read again, changed, crashed, damaged.

mod crash;
mod hostile;
mod journeys;
mod model;
