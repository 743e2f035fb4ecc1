//! The sums over connections agree with what the connections say of themselves.

use super::*;
use crate::endpoint::{Losses, SendOptions};

/// The client sends; every fourth of its packets is lost. What the client's connection says of
/// itself at the end.
fn lossy(net: &mut Net, c: ConnHandle, mut look: impl FnMut(&mut Endpoint)) -> Losses {
    let options = ChannelOptions::default();
    let key = net.client.ep.open_channel(net.now, c, "x", &options).unwrap();
    net.run(10);
    let (h, asked) = *net.host.log.requests.last().unwrap();
    net.host.ep.accept_channel(net.now, h, asked, &options).unwrap();
    net.run(10);
    let mut count = 0;
    for _ in 0..400 {
        let _ = net.client.ep.send(net.now, c, key, &[7; 4000], SendOptions::default());
        net.now += Duration::from_millis(1);
        let now = net.now;
        for (_, packet) in net.client.transmit(now) {
            count += 1;
            if count % 4 != 0 {
                net.host.receive(now, net.client.addr, &packet);
            }
        }
        for (_, packet) in net.host.transmit(now) {
            net.client.receive(now, net.host.addr, &packet);
        }
        net.client.timers(now);
        net.host.timers(now);
        look(&mut net.client.ep);
    }
    let losses = net.client.inside(c).losses();
    assert!(losses.packets_lost > 5 && losses.retransmits > 5, "{losses:?}");
    losses
}

fn end(net: &mut Net, c: ConnHandle) {
    net.client.ep.close(net.now, c, 1000, "", None).unwrap();
    for _ in 0..200 {
        net.now += Duration::from_millis(50);
        net.run(1);
    }
    assert!(net.client.log.dead.iter().any(|(dead, _)| *dead == c), "not gone");
}

#[test]
fn what_nobody_looked_at_is_counted_when_the_connection_is_gone() {
    let mut net = Net::new();
    let mut expected = Losses::default();
    // The second and third have the slot of the first.
    for _ in 0..3 {
        let (c, _) = net.connect();
        let losses = lossy(&mut net, c, |_| {});
        assert_eq!(net.client.ep.losses(), expected);
        end(&mut net, c);
        expected.add_since(Losses::default(), losses);
        let sum = net.client.ep.losses();
        assert!(sum.packets_lost >= expected.packets_lost, "{sum:?}, {expected:?}");
        assert!(sum.retransmits >= expected.retransmits, "{sum:?}, {expected:?}");
        expected = sum;
    }
}

#[test]
fn looks_count_nothing_twice_and_sums_never_shrink() {
    let mut net = Net::new();
    let mut last = Losses::default();
    for _ in 0..2 {
        let (c, _) = net.connect();
        let before = net.client.ep.losses();
        let mut turn = 0;
        let losses = lossy(&mut net, c, |ep| {
            turn += 1;
            if turn % 3 == 0 {
                (0..=ep.slots()).for_each(|slot| ep.count_losses(slot));
            }
            let now = ep.losses();
            assert!(now.packets_lost >= last.packets_lost && now.retransmits >= last.retransmits);
            last = now;
        });
        (0..2).for_each(|_| net.client.ep.count_losses(c.slot as usize));
        let mut expected = before;
        expected.add_since(Losses::default(), losses);
        assert_eq!(net.client.ep.losses(), expected);
        end(&mut net, c);
        last = net.client.ep.losses();
        assert!(last.packets_lost >= expected.packets_lost);
        // A few may be lost while it ends.
        assert!(last.packets_lost < expected.packets_lost + losses.packets_lost / 2, "{last:?}");
    }
}
