"""Runs the examples of docs/clients.md and docs/integration-prompt.md as they stand."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parents[2]
work = pathlib.Path(tempfile.mkdtemp())
shutil.copy(pathlib.Path(os.environ["FACES"]) / "obama.jpg", work / "a.jpg")
shutil.copy(pathlib.Path(os.environ["FACES"]) / "obama2.jpg", work / "b.jpg")


def command(language: str, text: str, i: int) -> list[str]:
    if language == "sh":
        return ["bash", "-euc", text]
    name = {"python": f"example{i}.py", "js": f"example{i}.mjs", "go": f"example{i}.go"}[language]
    (work / name).write_text(text)
    return {"python": [sys.executable], "js": ["node"], "go": ["go", "run"]}[language] + [name]


def expected(language: str, text: str, out: str) -> str | None:
    """What is wrong with an example's output, None when nothing is."""
    if "face-match" in text and language != "sh":
        return None if "Approved" in out else "no Approved"
    if "--fail-with-body" not in text:
        return None
    answer = json.loads(out)
    if "sandbox_scenario=decline" in text:
        return None if answer["face_match"]["status"] == "Declined" else "not Declined"
    if "face-match" in text:
        for field in ("request_id", "vendor_data", "metadata", "created_at"):
            if field not in answer:
                return f"no {field}"
        for field in ("status", "score", "warnings", "source_image", "target_image", "user_image", "ref_image"):
            if field not in answer["face_match"]:
                return f"no {field}"
        return None if answer["face_match"]["status"] == "Approved" else "not Approved"
    return None if answer["liveness"]["status"] in ("Approved", "Declined") else "no status"


failed = 0
for doc in ("docs/clients.md", "docs/integration-prompt.md"):
    blocks = re.findall(r"```(\w+)\n(.*?)```", (root / doc).read_text(), re.S)
    for i, (language, text) in enumerate(blocks):
        if language == "json" or "postern run" in text:
            continue  # settings of another program; the agent runs already
        env = dict(os.environ)
        if "postern keys" in text:  # in the repository, on the data folder of the running agent
            text = text.replace("bin/postern", f'{root}/bin/postern --data "$DATA"')
        r = subprocess.run(command(language, text, i), cwd=work, env=env, capture_output=True, text=True, timeout=120)
        wrong = f"exit {r.returncode}: {r.stderr}{r.stdout}" if r.returncode else expected(language, text, r.stdout)
        failed += wrong is not None
        print(f"{'ok   ' if wrong is None else 'FAIL '} {doc}: {language} example {i + 1}{'' if wrong is None else ': ' + wrong}")
shutil.rmtree(work)
sys.exit(1 if failed else 0)
