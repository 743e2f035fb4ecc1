//! Tables of cells, and the cell of a connection.

use super::*;
use crate::queue::cells::{ConnCell, Table};
use crate::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use std::sync::Arc;
use trunkline_proto::error::ApiError;

/// Two threads take, use and give back: neither ever sees the other's mark under its handle.
#[test]
fn loom_nobody_else_uses_a_cell_that_was_taken() {
    explore(3, || {
        let table: Arc<Table<ConnCell>> = Arc::new(Table::new(2));
        let user = |table: Arc<Table<ConnCell>>, mark: u64| {
            move || {
                for mark in [mark, mark + 1] {
                    let (index, life) = table.take().expect("one for each");
                    table.get(index).expect("there").user.store(mark, Ordering::Relaxed);
                    thread::yield_now();
                    let cell = table.check(index, life).expect("ours");
                    assert_eq!(cell.user.load(Ordering::Relaxed), mark);
                    table.give_back(index, life);
                    assert!(table.check(index, life).is_none());
                }
            }
        };
        let other = thread::spawn(user(table.clone(), 10));
        user(table, 20)();
        other.join().unwrap();
    });
}

/// A thread that can know of a new life never finds the cell by a handle of the old one; and what
/// was written before the new handle was given away is there for whoever has it.
#[test]
fn loom_a_stale_handle_names_nothing() {
    explore(3, || {
        let table: Arc<Table<ConnCell>> = Arc::new(Table::new(1));
        let known = Arc::new(AtomicBool::new(false));
        let old = table.take().expect("free");
        let user = {
            let (table, known) = (table.clone(), known.clone());
            thread::spawn(move || {
                table.give_back(old.0, old.1);
                let (index, life) = table.take().expect("given back");
                assert_eq!((index, life), (old.0, old.1 + 2));
                table.get(index).expect("there").begin(Status::Connected, 7);
                known.store(true, Ordering::Release);
            })
        };
        let is_known = known.load(Ordering::Acquire);
        assert!(!(is_known && table.check(old.0, old.1).is_some()));
        if let Some(new) = table.check(old.0, old.1 + 2).filter(|cell| cell.is_open(old.1 + 2)) {
            assert_eq!((new.status(), new.group.load(Ordering::Acquire)), (Status::Connected, 7));
        }
        user.join().unwrap();
    });
}

/// A close that cannot be handed over, while the connection ends and another begins in its cell.
#[test]
fn loom_a_close_that_fails_leaves_the_next_connection_alone() {
    explore(3, || {
        let link = link(4, 10);
        let conn = begin_conn(&link);
        let handle = conn.handle();
        let closer = {
            let link = link.clone();
            thread::spawn(move || {
                let Ok(cell) = link.conn(conn) else { return };
                let result = cell.close(handle.generation, || Err(ApiError::WouldBlock("full")));
                assert!(result.is_err());
            })
        };
        let next = {
            let link = link.clone();
            thread::spawn(move || {
                let conn = begin_conn(&link);
                let cell = link.conn(conn).expect("open");
                assert_eq!(cell.status(), Status::Connected);
                cell.close(conn.handle().generation, || Ok(())).expect("open until now");
                conn
            })
        };
        link.conns.give_back(handle.slot, handle.generation);
        closer.join().unwrap();
        let next = next.join().unwrap();
        assert!(link.conn(conn).is_err() && link.conn(next).is_err());
    });
}

/// Two threads close: one of them does.
#[test]
fn loom_a_connection_is_closed_once() {
    explore(3, || {
        let link = link(4, 10);
        let conn = begin_conn(&link);
        let close = move |link: &ShardLink| {
            let cell = link.conn(conn)?;
            cell.close(conn.handle().generation, || Ok(()))
        };
        let other = {
            let link = link.clone();
            thread::spawn(move || close(&link))
        };
        let results = [close(&link), other.join().unwrap()];
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(link.conn(conn).is_err());
    });
}
