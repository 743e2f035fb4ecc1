#!/usr/bin/env python3
"""Makes what is given away of the C library from a prefix that `cargo cinstall` has filled.

  cargo cinstall --locked --release -p trunkline-c --prefix /usr --libdir lib --destdir build
  bindings-c/package.py build/usr out

gives, in the folder out,

  trunkline-VERSION-ARCH-linux.tar.gz   works wherever it is unpacked
  libtrunkline…deb, libtrunkline-dev…deb
  SHA256SUMS

For Linux, with the binutils, and for the Debian packages with cargo-deb, dpkg and dpkg-dev. The
same prefix gives the same bytes: times are SOURCE_DATE_EPOCH, or the time of the last commit.
"""

import argparse
import gzip
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile

CRATE = pathlib.Path(__file__).resolve().parent
ROOT = CRATE.parent
NOTICES = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def run(*command, **more):
    words = [str(word) for word in command]
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True, **more)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: failed with {done.returncode}")
    return done.stdout


def time_of_all_files():
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    log = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        asked = subprocess.run(log, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return int(asked.stdout)
    except (OSError, subprocess.CalledProcessError):
        return 946_684_800


def metadata():
    text = run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform",
               host(), cwd=ROOT)
    return json.loads(text)


def host():
    return re.search(r"^host: (.+)$", run("rustc", "-vV"), re.MULTILINE)[1]


# ---- the files ----

def copy_installed(prefix, tree):
    """Takes over what belongs to this library, in case that the prefix has more."""
    (tree / "include").mkdir(parents=True)
    for name in [path.name for path in (CRATE / "include").iterdir()]:
        shutil.copy(prefix / "include" / name, tree / "include")
    (tree / "lib" / "pkgconfig").mkdir(parents=True)
    for path in (prefix / "lib").glob("libtrunkline.*"):
        shutil.copy(path, tree / "lib", follow_symlinks=False)
    shutil.copy(prefix / "lib" / "pkgconfig" / "trunkline.pc", tree / "lib" / "pkgconfig")
    shutil.copytree(prefix / "share" / "cmake" / "trunkline", tree / "share" / "cmake" / "trunkline")


def seal(tree):
    """Leaves trunk_* as the only global symbols of the static library.

    Without it, they include those of the Rust standard library, which another library made by Rust
    defines once more, of ring, and weak ones such as fma and round. The objects are linked into
    one, and all other symbols become local. Groups are dissolved: once its signature is local, the
    group of the same name in another library would replace ours. Nothing is left out as unused,
    which the program's linker can do; here ld would make weak references strong.
    """
    library = tree / "lib" / "libtrunkline.a"
    exported = run("nm", "-D", "--defined-only", "--format=posix", tree / "lib/libtrunkline.so")
    names = [line.split(" ")[0] for line in exported.splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        one = pathlib.Path(folder) / "trunkline.o"
        roots = [word for name in names for word in ("-u", name)]
        run("ld", "-r", "--force-group-allocation", *roots, "-o", one, library)
        keep = pathlib.Path(folder) / "keep"
        keep.write_text("\n".join(names) + "\n")
        # .llvmbc and .llvmcmd are bitcode of the standard library, which no linker takes.
        run("objcopy", f"--keep-global-symbols={keep}", "--strip-debug", "-R", ".llvmbc",
            "-R", ".llvmcmd", one)
        library.unlink()
        run("ar", "rcsD", library, one)


def strip_shared(tree):
    for path in (tree / "lib").glob("libtrunkline.so*"):
        if not path.is_symlink():
            run("strip", "--strip-unneeded", path)


def rewrite(pc, **variables):
    """Gives a pkg-config file other values of its variables."""
    text = pc.read_text()
    for name, value in variables.items():
        text, times = re.subn(rf"^{name}=.*$", lambda _: f"{name}={value}", text, flags=re.MULTILINE)
        assert times == 1, f"{name} in {pc}"
    pc.write_text(text)


def notices(meta, crate="trunkline-c", what="libtrunkline"):
    """The licences of everything that is linked into a crate's library or program."""
    tree = run("cargo", "tree", "--locked", "-p", crate, "-e", "normal,no-proc-macro",
               "--prefix", "none", "--format", "{p}", cwd=ROOT)
    linked = {tuple(line.split(" ")[:2]) for line in tree.splitlines()}
    foreign = [package for package in meta["packages"] if package["source"] is not None
               and (package["name"], "v" + package["version"]) in linked]
    foreign.sort(key=lambda package: (package["name"], package["version"]))
    lines = [f"{what} contains the Rust standard library (MIT OR Apache-2.0) and:", ""]
    texts = {}
    for package in foreign:
        name = f"{package['name']} {package['version']}"
        lines.append(f"{name} ({package['license']})")
        folder = pathlib.Path(package["manifest_path"]).parent
        for path in sorted(folder.rglob("*")):
            if NOTICES.match(path.name) and path.is_file() and path.suffix not in (".rs", ".toml"):
                text = path.read_text(encoding="utf-8", errors="replace").strip()
                texts.setdefault(text, []).append(f"{name}: {path.relative_to(folder)}")
    for text, owners in texts.items():
        lines += ["", "-" * 78, *owners, "", text]
    return "\n".join(lines) + "\n"


def add_documents(tree, meta):
    for name in ["LICENSE-MIT", "LICENSE-APACHE", "README.md"]:
        shutil.copy(ROOT / name, tree)
    (tree / "LICENSE-THIRD-PARTY").write_text(notices(meta), encoding="utf-8")
    documents = tree / "share" / "doc" / "trunkline"
    documents.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "packaging.md", documents)
    shutil.copytree(CRATE / "examples", documents / "examples")


# ---- the packages ----

def pack(tree, target, epoch, fast):
    """A .tar.gz that tells nothing of when, where and by whom it was made."""
    def plain(member):
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = epoch
        program = "/bin/" in member.name
        executable = member.isdir() or member.issym() or ".so" in member.name or program
        member.mode = 0o755 if executable else 0o644
        return member

    with open(target, "wb") as raw:
        level = 1 if fast else 9
        with gzip.GzipFile("", "wb", level, raw, epoch) as packed:
            with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
                archive.add(tree, tree.name, recursive=False, filter=plain)
                for path in sorted(tree.rglob("*")):
                    archive.add(path, path.relative_to(tree.parent), recursive=False, filter=plain)


def pack_debian(tree, out, version, soversion, epoch, target, fast):
    """The packages that Cargo.toml describes, by cargo-deb, and what it has no words for."""
    # cargo-deb looks for files in the crate and here, wherever the target folder is.
    stage = target / "release" / "trunkline-package"
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(tree, stage, symlinks=True)
    triplet = run("dpkg-architecture", "-qDEB_HOST_MULTIARCH").strip()
    rewrite(stage / "lib" / "pkgconfig" / "trunkline.pc", prefix="/usr",
            libdir="${prefix}/lib/" + triplet)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    environment.pop("CARGO_BUILD_TARGET", None)
    for variant in [[], ["--variant=dev"]]:
        made = run("cargo", "deb", "--quiet", "--locked", "--no-build", "--no-strip", "--fast",
                   "--multiarch=same", *variant, "-p", "trunkline-c", "-o", f"{out}/",
                   cwd=ROOT, env=environment)
        package = pathlib.Path(made.strip().splitlines()[-1])
        with tempfile.TemporaryDirectory() as folder:
            content = pathlib.Path(folder) / "content"
            run("dpkg-deb", "-R", package, content)
            if not variant:
                finish_shared(content, version, soversion)
            sums = content / "DEBIAN" / "md5sums"
            files = [path for path in sorted(content.rglob("*"))
                     if path.is_file() and not path.is_symlink() and "DEBIAN" not in path.parts]
            sums.write_text("".join(
                f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(content)}\n"
                for path in files))
            compression = ["-Zgzip", "-z1"] if fast else ["-Zxz"]
            run("dpkg-deb", "--root-owner-group", *compression, "-b", content, package,
                env=environment)
    shutil.rmtree(stage)


def finish_shared(content, version, soversion):
    # cargo-deb asks what a file depends on only if it is executable; Debian's libraries are not.
    for path in content.rglob("libtrunkline.so.*"):
        if not path.is_symlink():
            path.chmod(0o644)
    # From this, packages that link with the library learn which package they depend on.
    (content / "DEBIAN" / "shlibs").write_text(
        f"libtrunkline {soversion} libtrunkline{soversion} (>= {version})\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prefix", type=pathlib.Path, help="filled by cargo cinstall, libdir lib")
    parser.add_argument("out", type=pathlib.Path, help="folder for the results, made if missing")
    parser.add_argument("--no-deb", action="store_true", help="the archive only")
    parser.add_argument("--fast", action="store_true", help="larger results")
    given = parser.parse_args()
    prefix, out = given.prefix.resolve(), given.out.resolve()

    pc = (prefix / "lib" / "pkgconfig" / "trunkline.pc").read_text()
    version = re.search(r"^Version: (\S+)$", pc, re.MULTILINE)[1]
    dynamic = run("readelf", "-d", prefix / "lib" / "libtrunkline.so")
    soversion = re.search(r"\(SONAME\).*\[libtrunkline\.so\.(.+)\]", dynamic)[1]
    epoch, meta = time_of_all_files(), metadata()

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / f"trunkline-{version}-{platform.machine()}-linux"
        copy_installed(prefix, tree)
        seal(tree)
        strip_shared(tree)
        add_documents(tree, meta)
        rewrite(tree / "lib" / "pkgconfig" / "trunkline.pc", prefix="${pcfiledir}/../..",
                libdir="${prefix}/lib", includedir="${prefix}/include")
        pack(tree, out / f"{tree.name}.tar.gz", epoch, given.fast)
        if not given.no_deb:
            target = pathlib.Path(meta["target_directory"])
            pack_debian(tree, out, version, soversion, epoch, target, given.fast)
    results = sorted([*out.glob("trunkline-*.tar.gz"), *out.glob("*.deb")])
    (out / "SHA256SUMS").write_text("".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in results))
    for path in results:
        print(path)


if __name__ == "__main__":
    main()
