//! The C library is installed, packed, moved and used as somebody else would do it.
//!
//! Needs cargo-c, cargo-deb, CMake, pkg-config, OpenSSL's headers, Python 3 and Debian's tools; says
//! what is missing and passes, unless `TRUNKLINE_PACKAGING_REQUIRED` is set. Then it also installs
//! the Debian packages on this machine, as root, and removes them again.
//! `TRUNKLINE_PACKAGING_PROFILE=release` packs what users get instead of what builds quickly.
#![cfg(target_os = "linux")]

mod common;

use common::{Link, declared, root, run, succeeded};
use std::collections::BTreeSet;
use std::fs::{read, read_link, read_to_string};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const REQUIRED: &str = "TRUNKLINE_PACKAGING_REQUIRED";
const PROFILE: &str = "TRUNKLINE_PACKAGING_PROFILE";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// Programs of the consumer's project with the standard that each is compiled for.
const PROGRAMS: [(&str, &str); 4] = [
    ("digest_c.c", "c99"),
    ("digest_c.c", "c11"),
    ("digest_cpp.cpp", "c++17"),
    ("digest_cpp.cpp", "c++20"),
];

fn required() -> bool {
    std::env::var_os(REQUIRED).is_some()
}

/// Whether all is there that these tests need.
fn equipped() -> bool {
    static MISSING: OnceLock<Vec<&str>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        let works = |words: &str| {
            let mut words = words.split(' ');
            let mut command = Command::new(words.next().expect("a command"));
            command.args(words).output().is_ok_and(|output| output.status.success())
        };
        let needs = [
            ("cargo cinstall --version", "cargo-c"),
            ("cargo deb --version", "cargo-deb"),
            ("cmake --version", "cmake"),
            ("pkg-config --version", "pkg-config"),
            ("pkg-config --exists libcrypto", "libssl-dev"),
            ("c++ --version", "a C++ compiler"),
            ("python3 --version", "python3"),
            ("dpkg-shlibdeps --version", "dpkg-dev"),
        ];
        needs.into_iter().filter(|(probe, _)| !works(probe)).map(|(_, name)| name).collect()
    });
    if missing.is_empty() {
        return true;
    }
    assert!(!required(), "{REQUIRED} is set and these are missing: {}", missing.join(", "));
    eprintln!("skipped: {} missing", missing.join(", "));
    false
}

// ---- folders ----

/// A new, empty folder of these tests.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packaging").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a writable target folder");
    path
}

/// All files and links under a folder, without it.
fn files(folder: &Path) -> BTreeSet<String> {
    let found = ok(Command::new("find").current_dir(folder).args([".", "!", "-type", "d"]));
    found.lines().map(|line| line.trim_start_matches("./").to_owned()).collect()
}

/// Runs a tool to its end, however long it takes; what it printed.
fn ok(command: &mut Command) -> String {
    succeeded(&command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// Where `cargo cinstall` has put everything; like /usr/local, but for these tests.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = folder("installed");
        let profile = std::env::var(PROFILE).unwrap_or_else(|_| "quick".to_owned());
        ok(common::cargo()
            .args(["cinstall", "--locked", "-p", "trunkline-c", "--profile", &profile])
            .args(["--libdir", "lib", "--prefix"])
            .arg(&prefix)
            .arg("--target-dir")
            .arg(common::target()));
        prefix
    })
}

/// Where `package.py` has put its results.
fn packed() -> &'static Path {
    static OUT: OnceLock<PathBuf> = OnceLock::new();
    OUT.get_or_init(|| {
        let out = folder("packed");
        pack(&out);
        out
    })
}

fn pack(out: &Path) {
    let mut command = common::without_cargo("python3");
    command.arg(root().join("package.py")).arg("--fast").arg(installed()).arg(out);
    ok(command.env("CARGO_TARGET_DIR", common::target()));
}

/// The unpacked archive, in a new folder.
fn unpacked(name: &str) -> PathBuf {
    let folder = folder(name);
    let stem = format!("trunkline-{VERSION}-{}-linux", std::env::consts::ARCH);
    let archive = packed().join(format!("{stem}.tar.gz"));
    ok(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(&folder));
    folder.join(stem)
}

// ---- the consumer ----

fn consumer() -> PathBuf {
    root().join("tests/consumer")
}

/// How pkg-config finds the library.
#[derive(Clone, Copy)]
struct Find<'a> {
    /// Folder of trunkline.pc; none if it is the system's.
    path: Option<&'a Path>,
    /// For the prefix in that file to be taken from its place.
    relocate: bool,
}

impl Find<'_> {
    fn ask(self, args: &[&str]) -> Vec<String> {
        let mut command = Command::new("pkg-config");
        if self.relocate {
            command.arg("--define-prefix");
        }
        if let Some(path) = self.path {
            command.env("PKG_CONFIG_PATH", path);
        }
        let said = ok(command.args(args).arg("trunkline"));
        said.split_whitespace().map(str::to_owned).collect()
    }

    /// Builds a program with these flags and runs it.
    fn build_and_run(self, out: &Path, (source, standard): (&str, &str), link: Link) {
        let compiler = if standard.contains("++") { "c++" } else { "cc" };
        let exe = out.join(format!("{standard}-{link:?}"));
        let mut libs = match link {
            Link::Shared => self.ask(&["--libs"]),
            Link::Static => self.ask(&["--static", "--libs"]),
        };
        match link {
            Link::Shared if self.path.is_some() => {
                libs.push(format!("-Wl,-rpath,{}", self.ask(&["--variable=libdir"]).concat()));
            }
            Link::Shared => {}
            Link::Static => libs.iter_mut().for_each(|word| {
                *word = word.replace("-ltrunkline", "-l:libtrunkline.a");
            }),
        }
        let mut command = Command::new(compiler);
        command.arg(format!("-std={standard}")).args(WARNINGS).args(self.ask(&["--cflags"]));
        command.arg(consumer().join(source)).arg("-o").arg(&exe).args(libs).arg("-lcrypto");
        ok(&mut command);
        works(&exe, link);
    }
}

/// Runs a program of the consumer, which must have the library in it as it was linked.
fn works(exe: &Path, link: Link) {
    let said = succeeded(&run(&mut Command::new(exe)));
    assert_eq!(said, format!("right, with trunkline {VERSION}\n"));
    let needed = needed(exe);
    assert_eq!(needed.contains(&soname()), link == Link::Shared, "{}: {needed:?}", exe.display());
    assert!(needed.iter().any(|name| name.starts_with("libcrypto")), "{needed:?}");
}

/// The value of every entry of a kind in the dynamic section.
fn dynamic(file: &Path, kind: &str) -> Vec<String> {
    let text = ok(Command::new("readelf").arg("-d").arg(file));
    let lines = text.lines().filter(|line| line.contains(&format!("({kind})")));
    lines.map(|line| line.split(['[', ']']).nth(1).expect("a value").to_owned()).collect()
}

fn needed(exe: &Path) -> Vec<String> {
    dynamic(exe, "NEEDED")
}

/// Builds programs of the consumer's CMake project, each shared and static, against a prefix or
/// what CMake finds by itself.
fn cmake(name: &str, prefix: Option<&Path>, programs: &[(&str, &str)]) -> PathBuf {
    let build = folder(name);
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(consumer()).arg("-B").arg(&build);
    if let Some(prefix) = prefix {
        configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
    }
    ok(&mut configure);
    let names = programs.iter().map(|(source, standard)| {
        let stem = source.split('.').next().expect("a stem");
        format!("{stem}-{}", standard.trim_start_matches(['c', '+']))
    });
    let names: Vec<String> = names.collect();
    let targets =
        names.iter().flat_map(|name| [format!("{name}-shared"), format!("{name}-static")]);
    let mut compile = Command::new("cmake");
    ok(compile.arg("--build").arg(&build).args(["--parallel", "2", "--target"]).args(targets));
    for name in names {
        works(&build.join(format!("{name}-shared")), Link::Shared);
        works(&build.join(format!("{name}-static")), Link::Static);
    }
    build
}

// ---- what is promised ----

/// The version that a soname ends with: what is incompatible changes it.
fn soversion() -> String {
    let (major, rest) = VERSION.split_once('.').expect("a version");
    let minor = rest.split('.').next().expect("a minor version");
    if major == "0" { format!("0.{minor}") } else { major.to_owned() }
}

fn soname() -> String {
    format!("libtrunkline.so.{}", soversion())
}

/// The headers that there are, as they must be installed.
fn headers() -> BTreeSet<String> {
    let folder = root().join("include").read_dir().expect("include/");
    folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn assert_headers(include: &Path) {
    assert!(headers().contains("trunkline.h"));
    assert_eq!(files(include), headers());
    for name in headers() {
        assert!(
            read(include.join(&name)).unwrap() == read(root().join("include").join(&name)).unwrap()
        );
    }
}

fn assert_libraries(lib: &Path) {
    let real = format!("libtrunkline.so.{VERSION}");
    assert_eq!(dynamic(&lib.join(&real), "SONAME"), [soname()]);
    assert_eq!(read_link(lib.join(soname())).unwrap(), Path::new(&real));
    assert_eq!(read_link(lib.join("libtrunkline.so")).unwrap(), Path::new(&real));
}

#[test]
fn cinstall_installs_everything() {
    if !equipped() {
        return;
    }
    let prefix = installed();
    assert_headers(&prefix.join("include"));
    assert_libraries(&prefix.join("lib"));
    let mut all: BTreeSet<String> = [
        "lib/libtrunkline.a".to_owned(),
        "lib/libtrunkline.so".to_owned(),
        format!("lib/{}", soname()),
        format!("lib/libtrunkline.so.{VERSION}"),
        "lib/pkgconfig/trunkline.pc".to_owned(),
        "share/cmake/trunkline/trunklineConfig.cmake".to_owned(),
        "share/cmake/trunkline/trunklineConfigVersion.cmake".to_owned(),
    ]
    .into();
    all.extend(headers().into_iter().map(|name| format!("include/{name}")));
    assert_eq!(files(prefix), all);
    let find = Find { path: Some(&prefix.join("lib/pkgconfig")), relocate: false };
    assert_eq!(find.ask(&["--modversion"]), [VERSION]);
}

#[test]
fn programs_are_built_with_pkg_config() {
    if !equipped() {
        return;
    }
    let out = folder("with-pkg-config");
    let find = Find { path: Some(&installed().join("lib/pkgconfig")), relocate: false };
    for program in PROGRAMS {
        find.build_and_run(&out, program, Link::Shared);
        find.build_and_run(&out, program, Link::Static);
    }
}

#[test]
fn programs_are_built_with_cmake() {
    if equipped() {
        cmake("with-cmake", Some(installed()), &PROGRAMS);
    }
}

#[test]
fn a_prefix_that_was_moved_works() {
    if !equipped() {
        return;
    }
    let moved = folder("moved").join("elsewhere");
    ok(Command::new("cp").arg("-a").arg(installed()).arg(&moved));
    let find = Find { path: Some(&moved.join("lib/pkgconfig")), relocate: true };
    let flags = find.ask(&["--cflags", "--libs"]).join(" ");
    assert!(flags.contains(moved.to_str().unwrap()), "{flags}");
    assert!(!flags.contains(installed().to_str().unwrap()), "{flags}");
    let out = folder("moved-pkg-config");
    find.build_and_run(&out, PROGRAMS[0], Link::Shared);
    find.build_and_run(&out, PROGRAMS[2], Link::Static);
    let build = cmake("moved-cmake", Some(&moved), &PROGRAMS[..1]);
    let runpath = dynamic(&build.join("digest_c-99-shared"), "RUNPATH").concat();
    assert!(runpath.starts_with(moved.to_str().unwrap()), "{runpath}");
}

/// CMake takes this version for requests of the same compatible range, and no others.
#[test]
fn cmake_knows_which_versions_are_compatible() {
    if !equipped() {
        return;
    }
    let own: Vec<u32> = VERSION.split('.').map(|part| part.parse().unwrap()).collect();
    let (major, minor, patch) = (own[0], own[1], own[2]);
    let before_1 = major == 0;
    let file = installed().join("share/cmake/trunkline/trunklineConfigVersion.cmake");
    let text = read_to_string(&file).unwrap();
    assert!(text.contains(&format!("set(PACKAGE_VERSION {VERSION})")), "the version of the crate");
    for (asked, good) in [
        ([major, minor, 0], true),
        ([major, minor, patch], true),
        ([major, minor, patch + 1], false),
        ([major, minor + 1, 0], false),
        ([major + 1, 0, 0], false),
        ([major, minor.saturating_sub(1), 0], !before_1 || minor == 0),
    ] {
        let [a, b, c] = asked;
        let output = Command::new("cmake")
            .arg(format!("-DPACKAGE_FIND_VERSION={a}.{b}.{c}"))
            .arg(format!("-DPACKAGE_FIND_VERSION_MAJOR={a}"))
            .arg(format!("-DPACKAGE_FIND_VERSION_MINOR={b}"))
            .arg(format!("-DFILE={}", file.display()))
            .arg("-P")
            .arg(consumer().join("version.cmake"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.trim(), if good { "yes" } else { "no" }, "{asked:?}");
    }
}

#[test]
fn the_archive_works_wherever_it_is_unpacked() {
    if !equipped() {
        return;
    }
    let tree = unpacked("archive");
    assert_headers(&tree.join("include"));
    assert_libraries(&tree.join("lib"));
    for name in ["LICENSE-MIT", "LICENSE-APACHE", "README.md"] {
        assert!(read(tree.join(name)).unwrap() == read(root().join("..").join(name)).unwrap());
    }
    let foreign = read_to_string(tree.join("LICENSE-THIRD-PARTY")).unwrap();
    for name in ["\nrustls 0.", ": LICENSE-BoringSSL", "Permission to use, copy, modify"] {
        assert!(foreign.contains(name), "{name}");
    }
    assert!(!foreign.contains("\ncbindgen "), "not linked into the library");

    let out = folder("archive-pkg-config");
    let find = Find { path: Some(&tree.join("lib/pkgconfig")), relocate: false };
    find.build_and_run(&out, PROGRAMS[0], Link::Shared);
    find.build_and_run(&out, PROGRAMS[3], Link::Static);
    cmake("archive-cmake", Some(&tree), &PROGRAMS[1..3]);
}

#[test]
fn packing_twice_gives_the_same_bytes() {
    if !equipped() {
        return;
    }
    let sums = |out: &Path| read_to_string(out.join("SHA256SUMS")).unwrap();
    let first = sums(packed());
    let again = folder("packed-again");
    pack(&again);
    assert_eq!(sums(&again), first);
    assert_eq!(sums(&again).lines().count(), 3);
    ok(Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(&again));
}

/// A host that has OpenSSL, another Rust library, or symbols of its own meets nothing but `trunk_*`.
#[test]
fn the_packed_static_library_has_no_other_global_symbols() {
    if !equipped() {
        return;
    }
    let tree = unpacked("symbols");
    let library = tree.join("lib/libtrunkline.a");
    let nm = ["-g", "--defined-only", "--format=posix"];
    let text = ok(Command::new("nm").args(nm).arg(&library));
    let symbols = text.lines().filter(|line| line.contains(' '));
    let global: BTreeSet<String> =
        symbols.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(global, declared());

    // Beside another static library made by Rust, which has its own panics, in both orders.
    let out = folder("beside");
    let beside = out.join("libbeside.a");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    ok(Command::new(rustc)
        .args(["--edition=2024", "--crate-type=staticlib", "-o"])
        .arg(&beside)
        .arg(consumer().join("beside.rs")));
    let find = Find { path: Some(&tree.join("lib/pkgconfig")), relocate: false };
    for first in [&beside, &library] {
        let second = if *first == beside { &library } else { &beside };
        let exe = out.join(first.file_stem().unwrap());
        ok(Command::new("cc")
            .args(["-std=c99", "-o"])
            .arg(&exe)
            .args(find.ask(&["--cflags"]))
            .arg(consumer().join("beside.c"))
            .args([first, second].map(|path| path.as_os_str()))
            .args(find.ask(&["--static", "--libs-only-l"]).iter().filter(|l| *l != "-ltrunkline")));
        assert_eq!(succeeded(&run(&mut Command::new(&exe))), "1 99\n");
    }
}

// ---- Debian ----

const RUNTIME: &str = "libtrunkline0.1";
const DEVELOPMENT: &str = "libtrunkline-dev";

fn debian_package(name: &str) -> PathBuf {
    let architecture = ok(Command::new("dpkg").arg("--print-architecture"));
    packed().join(format!("{name}_{VERSION}-1_{}.deb", architecture.trim()))
}

fn field(package: &Path, name: &str) -> String {
    ok(Command::new("dpkg-deb").arg("-f").arg(package).arg(name)).trim().to_owned()
}

#[test]
fn the_debian_packages_have_what_belongs_to_them() {
    if !equipped() {
        return;
    }
    assert_eq!(RUNTIME, format!("libtrunkline{}", soversion()), "also in Cargo.toml");
    let (runtime, development) = (debian_package(RUNTIME), debian_package(DEVELOPMENT));
    let depends = field(&runtime, "Depends");
    assert!(depends.contains("libc6 (>= ") && depends.contains("libgcc-s1"), "{depends}");
    assert_eq!(field(&development, "Depends"), format!("{RUNTIME} (= {VERSION}-1)"));
    for package in [&runtime, &development] {
        assert_eq!(field(package, "Version"), format!("{VERSION}-1"));
        assert_eq!(field(package, "Multi-Arch"), "same");
    }
    let shlibs = ok(Command::new("dpkg-deb").arg("-I").arg(&runtime).arg("shlibs"));
    assert_eq!(shlibs, format!("libtrunkline {} {RUNTIME} (>= {VERSION})\n", soversion()));
    let triggers = ok(Command::new("dpkg-deb").arg("-I").arg(&runtime).arg("triggers"));
    assert_eq!(triggers, "activate-noawait ldconfig\n");

    let tree = folder("debian");
    ok(Command::new("dpkg-deb").arg("-x").arg(&runtime).arg(&tree));
    let triplet = ok(Command::new("dpkg-architecture").arg("-qDEB_HOST_MULTIARCH"));
    let lib = format!("usr/lib/{}", triplet.trim());
    let documents = |name: &str| format!("usr/share/doc/{name}");
    let of_runtime = BTreeSet::from([
        format!("{lib}/{}", soname()),
        format!("{lib}/libtrunkline.so.{VERSION}"),
        documents(RUNTIME) + "/copyright",
        documents(RUNTIME) + "/LICENSE-THIRD-PARTY",
    ]);
    assert_eq!(files(&tree), of_runtime);
    ok(Command::new("dpkg-deb").arg("-x").arg(&development).arg(&tree));
    assert_headers(&tree.join("usr/include"));
    assert_libraries(&tree.join(&lib));
    for name in [
        &format!("{lib}/libtrunkline.a"),
        &format!("{lib}/pkgconfig/trunkline.pc"),
        "usr/share/cmake/trunkline/trunklineConfig.cmake",
        "usr/share/cmake/trunkline/trunklineConfigVersion.cmake",
        &(documents(DEVELOPMENT) + "/copyright"),
        &(documents(DEVELOPMENT) + "/packaging.md"),
        &(documents(DEVELOPMENT) + "/examples/echo.c"),
    ] {
        assert!(tree.join(name).is_file(), "{name}");
    }
    // The folder is what /usr will be.
    cmake("debian-cmake", Some(&tree.join("usr")), &PROGRAMS[..1]);
}

/// The packages on this machine; removed when dropped.
struct OnThisMachine;

impl OnThisMachine {
    fn new() -> Self {
        let guard = Self;
        ok(Command::new("dpkg").arg("-i").args([RUNTIME, DEVELOPMENT].map(debian_package)));
        guard
    }
}

impl Drop for OnThisMachine {
    fn drop(&mut self) {
        let output = Command::new("dpkg").args(["--purge", DEVELOPMENT, RUNTIME]).output();
        if !std::thread::panicking() {
            succeeded(&output.unwrap());
        }
    }
}

#[test]
fn the_debian_packages_are_installed_and_removed() {
    if !equipped() {
        return;
    }
    if !required() {
        return eprintln!("skipped: installs packages on this machine only with {REQUIRED}");
    }
    if ok(Command::new("id").arg("-u")).trim() != "0" {
        return eprintln!("skipped: only root can install packages");
    }
    let known = |name: &str| {
        let status = ["-W", "-f=${db:Status-Status}", name];
        Command::new("dpkg-query").args(status).output().unwrap().stdout == b"installed"
    };
    if known(RUNTIME) || known(DEVELOPMENT) {
        return eprintln!("skipped: {RUNTIME} or {DEVELOPMENT} is installed already");
    }
    let on_this_machine = OnThisMachine::new();
    ok(Command::new("dpkg").args(["--verify", RUNTIME, DEVELOPMENT]));

    // Nothing says where it is.
    let out = folder("system");
    let find = Find { path: None, relocate: false };
    assert!(find.ask(&["--cflags"]).is_empty());
    find.build_and_run(&out, PROGRAMS[0], Link::Shared);
    find.build_and_run(&out, PROGRAMS[3], Link::Static);
    let build = cmake("system-cmake", None, &PROGRAMS[..1]);
    let plain = out.join("plain");
    let words = ["-std=c99", "-o"];
    let libs = ["-ltrunkline", "-lcrypto"];
    let source = consumer().join("digest_c.c");
    ok(Command::new("cc").args(words).arg(&plain).arg(source).args(libs));
    works(&plain, Link::Shared);
    // A package of this program would know what it depends on.
    std::fs::create_dir(out.join("debian")).unwrap();
    std::fs::write(out.join("debian/control"), "").unwrap();
    let depends = ok(Command::new("dpkg-shlibdeps").current_dir(&out).args(["-O", "plain"]));
    assert!(depends.contains(&format!("{RUNTIME} (>= {VERSION})")), "{depends}");

    drop(on_this_machine);
    assert!(!known(RUNTIME) && !known(DEVELOPMENT));
    let gone = run(&mut Command::new(build.join("digest_c-99-shared")));
    assert!(!gone.status.success(), "the library is gone");
}
