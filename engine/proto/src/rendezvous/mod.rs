//! How peers find each other before there is a connection.

pub mod presence;
