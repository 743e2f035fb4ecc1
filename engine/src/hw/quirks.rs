//! What is known to be wrong with which kernel.

/// A kernel version: major, minor, patch.
pub type Version = (u32, u32, u32);

/// What an engine does about a quirk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A profile that is loaded switches segmentation by the system (GSO) off.
    NoGso,
    /// Nothing has to be set: the engine asks the system, or works around it.
    Told,
}

/// Something wrong with a range of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirk {
    /// A short name.
    pub name: &'static str,
    /// The first version that has it.
    pub first: Version,
    /// The last version that has it.
    pub last: Version,
    /// What happens, and what is done about it.
    pub what: &'static str,
    /// What an engine does.
    pub effect: Effect,
}

/// Any patch release.
const ANY: u32 = u32::MAX;

/// All of them.
pub const QUIRKS: [Quirk; 4] = [
    Quirk {
        name: "no-udp-gso",
        first: (0, 0, 0),
        last: (4, 17, ANY),
        what: "kernels before 4.18 cannot segment UDP: packets are sent one by one",
        effect: Effect::Told,
    },
    Quirk {
        name: "io-uring-floor",
        first: (0, 0, 0),
        last: (6, 5, ANY),
        what: "io_uring is taken from kernel 6.6 on; on older ones the engine uses mio",
        effect: Effect::Told,
    },
    Quirk {
        name: "incremental-buffers",
        first: (6, 12, 0),
        last: (6, 18, ANY),
        what: "io_uring loses track of buffers that are consumed in steps; the engine does not use them that way",
        effect: Effect::Told,
    },
    Quirk {
        name: "gso-equal-trains",
        first: (7, 0, 0),
        last: (7, 1, 4),
        what: "kernels 7.0 to 7.1.4 mangle UDP GSO trains of equal length: packets are sent one by one",
        effect: Effect::NoGso,
    },
];

/// The version of a release such as `6.12.3-generic`; a part that is missing is 0. `None` when it
/// does not begin with two numbers.
pub fn version(release: &str) -> Option<Version> {
    let numbers = release.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = numbers.split('.');
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((major, minor, parts.next().and_then(|p| p.parse().ok()).unwrap_or(0)))
}

/// The quirks of a kernel's release; none when its version cannot be told.
pub fn of(release: &str) -> impl Iterator<Item = &'static Quirk> {
    let version = version(release);
    QUIRKS.iter().filter(move |q| version.is_some_and(|v| (q.first..=q.last).contains(&v)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (release, expected) in [
            ("6.18.44-fc-v669", Some((6, 18, 44))),
            ("7.1-rc3", Some((7, 1, 0))),
            ("5.15.0-105-generic", Some((5, 15, 0))),
            ("7.1.4", Some((7, 1, 4))),
            ("6.8.12+", Some((6, 8, 12))),
            ("", None),
            ("six", None),
            ("6", None),
            ("99999999999.1", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn ranges_include_their_ends() {
        let names = |release| of(release).map(|q| q.name).collect::<Vec<_>>();
        assert_eq!(names("7.1.4-arch1"), ["gso-equal-trains"]);
        assert_eq!(names("7.0.0"), ["gso-equal-trains"]);
        assert!(names("7.1.5").is_empty() && names("6.19.3").is_empty() && names("").is_empty());
        assert_eq!(names("6.18.44"), ["incremental-buffers"]);
        assert_eq!(names("6.5.0"), ["io-uring-floor"]);
        assert!(names("6.6.0").is_empty());
        assert_eq!(names("4.9.1"), ["no-udp-gso", "io-uring-floor"]);
    }
}
