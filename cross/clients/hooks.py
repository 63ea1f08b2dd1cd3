"""Pictures for schemathesis, so that what it sends reaches the decoders."""

import os

import schemathesis
from hypothesis import strategies as st


def _picture(name: str) -> bytes:
    with open(os.path.join(os.environ["FACES"], name), "rb") as f:
        return f.read()


schemathesis.openapi.format(
    "binary",
    st.sampled_from([_picture("obama2.jpg"), _picture("32bit.png"), b"", b"not a picture"]),
)
