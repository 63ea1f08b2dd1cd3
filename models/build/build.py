"""Builds the shipped models into models/, or checks that they are what we build."""

import argparse
import pathlib
import sys
import tempfile

import catalogue
import manifest
from sources import CACHE, ROOT, sha256


def write(folder, make):
    """Builds one model into folder and returns its manifest."""
    content, description = make()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest.encode(description))
    return description


def build(target, products):
    for model_id, make in catalogue.SHIPPED.items():
        report(write(target / model_id, make))
    for model_id, make in catalogue.PRODUCTS.items():
        report(write(products / model_id, make))


def report(description):
    print(f"{description['sha256']}  {description['size']:>8}  {description['id']}", flush=True)


def differences(built, committed):
    """Lists the files of built that committed lacks or has with other bytes."""
    found = []
    for path in sorted(p for p in built.rglob("*") if p.is_file()):
        other = committed / path.relative_to(built)
        if not other.exists():
            found.append(f"{path.relative_to(built)}: not committed")
        elif sha256(other.read_bytes()) != sha256(path.read_bytes()):
            found.append(f"{path.relative_to(built)}: differs from what the builder makes")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true",
                        help="build into a temporary folder and compare every byte")
    check = parser.parse_args().check
    if not check:
        build(ROOT / "models", CACHE / "models")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        shipped = pathlib.Path(scratch) / "models"
        build(shipped, pathlib.Path(scratch) / "products")
        found = differences(shipped, ROOT / "models")
    for line in found:
        print("models/" + line, file=sys.stderr)
    if not found:
        print("every shipped file is what the builder makes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
