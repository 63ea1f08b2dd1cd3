"""Writes nfpm's configuration, as JSON (which is YAML), from the environment of deb.sh."""

import json
import os

e = os.environ


def names(key):
    return [n.strip() for n in e[key].split(",") if n.strip()]


scripts = e["SCRIPTS"]
print(json.dumps({
    "name": e["PACKAGE"],
    "arch": e["ARCH"],
    "platform": "linux",
    "version": e["DEB_VERSION"],
    "version_schema": "none",
    "section": "admin",
    "priority": "optional",
    "maintainer": e["MAINTAINER"],
    "description": e["DESCRIPTION"],
    "license": "Apache-2.0",
    "mtime": e["MTIME"],
    "depends": names("DEPENDS"),
    "recommends": names("RECOMMENDS"),
    "conflicts": names("CONFLICTS"),
    "replaces": names("CONFLICTS"),
    "provides": names("PROVIDES"),
    "contents": [
        {"src": e["STAGE"] + "/", "dst": "/", "type": "tree"},
    ] + [
        {"src": os.path.join(e["CONF"], f), "dst": "/etc/postern/" + f, "type": "config", "file_info": {"mode": 0o644}}
        for f in sorted(os.listdir(e["CONF"]))
    ],
    "deb": {"compression": "zstd", "scripts": {"templates": scripts + "/templates"}},
    "scripts": {
        "preinstall": scripts + "/preinst",
        "postinstall": scripts + "/postinst",
        "preremove": scripts + "/prerm",
        "postremove": scripts + "/postrm",
    },
}, indent=1))
