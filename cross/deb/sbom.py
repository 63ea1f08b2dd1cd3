"""Adds to a CycloneDX SBOM of the program what Go does not know of.

usage: sbom.py SBOM ROOT LITERT VERSION [PACKAGE=VERSION…]

The LiteRT library beside the program, the networks within it, and the Debian packages
it is linked with at run time. The output depends on the input only.
"""

import hashlib
import json
import pathlib
import sys


def component(kind, name, version, licences, purl=None, file=None, where=None):
    c = {"bom-ref": f"{kind}:{name}@{version}", "type": kind, "name": name, "version": version}
    if file is not None:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        c["hashes"] = [{"alg": "SHA-256", "content": digest}]
    if licences:
        c["licenses"] = [{"license": {"id": l}} for l in licences]
    if purl:
        c["purl"] = purl
    if where:
        c["properties"] = [{"name": "postern:place", "value": where}]
    return c


def models(root):
    for manifest in sorted(root.glob("models/*/manifest.json")):
        m = json.loads(manifest.read_text())
        yield component("machine-learning-model", m["id"], str(m["version"]), [m["license"]],
                        file=manifest.parent / m["file"], where="within the program")


def main(path, root, litert, litert_version, *packages):
    bom = json.loads(pathlib.Path(path).read_text())
    extra = [component("library", "LiteRT", litert_version, ["Apache-2.0"], f"pkg:pypi/ai-edge-litert@{litert_version}",
                       file=pathlib.Path(litert), where="/usr/lib/postern/libLiteRt.so")]
    extra += models(pathlib.Path(root))
    for p in packages:
        name, version = p.split("=", 1)
        extra.append(component("library", name, version, [], f"pkg:deb/debian/{name}", where="linked at run time"))
    bom.setdefault("components", []).extend(extra)
    pathlib.Path(path).write_text(json.dumps(bom, indent=1, sort_keys=True) + "\n")


main(*sys.argv[1:])
