#!/usr/bin/env python3
"""Makes what is given away of the tool, with its manual pages and shell completions.

  cargo build --locked --release -p trunkline-tools
  tools/package.py target/release/trunkline out

gives, in the folder out,

  trunkline-tools-VERSION-ARCH-linux.tar.gz   bin, share/man, completions for bash, zsh and fish,
                                              the Wireshark dissector and the documents
  trunkline-tools_VERSION-1_ARCH.deb          the same for Debian, where there is dpkg-deb

Pages and completions are asked of the program itself, so that they are always its own. The same
program gives the same bytes: times are SOURCE_DATE_EPOCH, or the time of the last commit.
"""

import argparse
import gzip
import hashlib
import importlib.util
import os
import pathlib
import platform
import re
import shutil
import subprocess
import tempfile

CRATE = pathlib.Path(__file__).resolve().parent
ROOT = CRATE.parent
DOCUMENTS = ["bench-json.md", "profiles.md", "tuning.md", "watching.md", "wireshark.md"]
# Where each shell looks, below share.
COMPLETIONS = {
    "bash": "bash-completion/completions/trunkline",
    "zsh": "zsh/site-functions/_trunkline",
    "fish": "fish/vendor_completions.d/trunkline.fish",
}


def library_package():
    """The script for the library, whose ways of packing are ours too."""
    path = ROOT / "bindings-c" / "package.py"
    spec = importlib.util.spec_from_file_location("library_package", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LIBRARY = library_package()
run = LIBRARY.run


def fill(tree, program):
    """The files as they lie under a prefix."""
    (tree / "bin").mkdir(parents=True)
    shutil.copy(program, tree / "bin" / "trunkline")
    run("strip", "--strip-unneeded", tree / "bin" / "trunkline")
    run(program, "man", "--dir", tree / "share" / "man" / "man1")
    for shell, place in COMPLETIONS.items():
        path = tree / "share" / place
        path.parent.mkdir(parents=True)
        path.write_text(run(program, "completions", shell), encoding="utf-8")
    dissector = tree / "share" / "trunkline" / "wireshark"
    dissector.mkdir(parents=True)
    shutil.copy(CRATE / "wireshark" / "trunkline.lua", dissector)
    documents = tree / "share" / "doc" / "trunkline-tools"
    documents.mkdir(parents=True)
    for name in DOCUMENTS:
        shutil.copy(ROOT / "docs" / name, documents)


def add_licences(folder):
    for name in ["LICENSE-MIT", "LICENSE-APACHE"]:
        shutil.copy(ROOT / name, folder)
    text = LIBRARY.notices(LIBRARY.metadata(), "trunkline-tools", "trunkline")
    (folder / "LICENSE-THIRD-PARTY").write_text(text, encoding="utf-8")


def needs(program):
    """The packages whose libraries the program is linked with, as dpkg-shlibdeps finds them."""
    with tempfile.TemporaryDirectory() as folder:
        control = pathlib.Path(folder) / "debian" / "control"
        control.parent.mkdir()
        control.write_text("Source: trunkline\n")
        found = run("dpkg-shlibdeps", "-O", program, cwd=folder, stderr=subprocess.DEVNULL)
    line = re.search(r"^shlibs:Depends=(.*)$", found, re.MULTILINE)
    if line is None:
        raise SystemExit(f"{program}: dpkg-shlibdeps names no packages")
    return line[1]


def pack_debian(tree, out, version, epoch):
    """A package of the tree, with compressed pages as Debian has them."""
    architecture = run("dpkg", "--print-architecture").strip()
    with tempfile.TemporaryDirectory() as folder:
        content = pathlib.Path(folder) / "content"
        usr = content / "usr"
        shutil.copytree(tree, usr)
        for name in ["LICENSE-MIT", "LICENSE-APACHE", "LICENSE-THIRD-PARTY"]:
            path = usr / name
            if name == "LICENSE-THIRD-PARTY":
                shutil.copy(path, usr / "share" / "doc" / "trunkline-tools")
            path.unlink()
        shutil.copy(ROOT / "bindings-c" / "debian" / "copyright",
                    usr / "share" / "doc" / "trunkline-tools" / "copyright")
        zsh = usr / "share" / "zsh"
        (zsh / "site-functions").rename(zsh / "vendor-completions")
        for page in (usr / "share" / "man" / "man1").iterdir():
            with open(f"{page}.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, 0) as packed:
                packed.write(page.read_bytes())
            page.unlink()
        size = sum(path.stat().st_size for path in usr.rglob("*") if path.is_file())
        control = content / "DEBIAN" / "control"
        control.parent.mkdir()
        control.write_text(
            f"Package: trunkline-tools\nVersion: {version}-1\nArchitecture: {architecture}\n"
            "Maintainer: The Trunkline contributors <noreply@trunkline.invalid>\n"
            f"Installed-Size: {size // 1024}\nDepends: {needs(usr / 'bin' / 'trunkline')}\n"
            "Suggests: wireshark\nSection: net\nPriority: optional\n"
            "Description: benchmark, profiles and tools of Trunkline\n"
            " Trunkline carries many independent channels over one encrypted connection, on\n"
            " UDP or on TLS 1.3 over TCP. This is its command-line tool.\n")
        files = sorted(path for path in usr.rglob("*") if path.is_file())
        sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(content)}\n"
                for path in files]
        (control.parent / "md5sums").write_text("".join(sums))
        for path in content.rglob("*"):
            executable = path.is_dir() or path.parent.name == "bin"
            path.chmod(0o755 if executable else 0o644)
        package = out / f"trunkline-tools_{version}-1_{architecture}.deb"
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        run("dpkg-deb", "--root-owner-group", "--build", content, package, env=environment)
    return package


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=pathlib.Path, help="the built trunkline")
    parser.add_argument("out", type=pathlib.Path, help="folder for the results, made if missing")
    parser.add_argument("--fast", action="store_true", help="a larger archive")
    given = parser.parse_args()
    program, out = given.program.resolve(), given.out.resolve()

    version = run(program, "--version").split()[1]
    epoch = LIBRARY.time_of_all_files()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        name = f"trunkline-tools-{version}-{platform.machine()}-linux"
        tree = pathlib.Path(folder) / name
        fill(tree, program)
        add_licences(tree)
        archive = out / f"{name}.tar.gz"
        LIBRARY.pack(tree, archive, epoch, given.fast)
        print(archive)
        if shutil.which("dpkg-deb") and shutil.which("dpkg-shlibdeps"):
            print(pack_debian(tree, out, version, epoch))


if __name__ == "__main__":
    main()
