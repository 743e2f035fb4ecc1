//! How the costs of Trunkline grow with connections, channels and shards.
//!
//! | series | what is varied |
//! | --- | --- |
//! | `connections` | connections, at one rate of messages in all |
//! | `channels` | channels of one connection, at one rate of messages in all |
//! | `limit` | the rate of 10,000 connections, up to the highest at which nothing is lost |
//! | `shards` | shards of each side, flooded over 64 connections |

pub mod job;
pub mod lines;
pub mod series;

#[cfg(feature = "peers")]
pub mod measure;
#[cfg(feature = "peers")]
pub mod sides;
