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
    if language == "json":  # settings of a program that starts the MCP server
        (work / "settings.json").write_text(text)
        tools = sorted(set(re.findall(r"`(didit_\w+)`", (root / "docs/clients.md").read_text())))
        return ["bash", "-euc", 'node "$0" "$@" <settings.json', str(root / "cross/clients/mcp-settings.mjs"), *tools]
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


def prompt_is_covered() -> list[str]:
    """What the integration prompt names and no command of it has used."""
    text = (root / "docs/integration-prompt.md").read_text()
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S))
    fields = re.findall(r"^\| `(\w+)` \|", text, re.M)
    wrong = [f"no command sends {f}" for f in fields if f"--form {f}=" not in commands and f"--form '{f}=" not in commands]
    step5 = text[text.index("## 5.") : text.index("## 6.")]
    scenarios = re.findall(r"`((?:approve|decline_|review_|duplicated_)\w*)`", step5)
    for scenario in scenarios:
        about = ["face-match", "ref_image=@b.jpg"] if "liveness" not in scenario and "face_in" not in scenario and "duplicated" not in scenario else ["passive-liveness", None]
        form = ["--form", "user_image=@a.jpg", "--form", f"sandbox_scenario={scenario}"] + (["--form", about[1]] if about[1] else [])
        r = subprocess.run(["curl", "--silent", "--fail-with-body", f"{os.environ['API_URL']}/v3/{about[0]}/", "--header", f"x-api-key: {os.environ['SANDBOX_KEY']}", *form],
                           cwd=work, capture_output=True, text=True, timeout=60)
        block = json.loads(r.stdout).get(about[0].replace("passive-", "").replace("-", "_"), {}) if r.returncode == 0 else {}
        want = "Declined" if scenario.startswith("decline") else "Approved"
        if block.get("status") != want or scenario.startswith("review") and block["score"] != 60:
            wrong.append(f"{scenario}: {r.stdout}")
    statuses = {
        413: ["session", "--header", "Content-Type: application/json", "--data-binary", "@big"],
        415: ["face-match", "--header", "Content-Type: application/json", "--data", "{}"],
        400: ["face-match", "--form", "user_image=@a.jpg"],
    }
    (work / "big").write_bytes(b" " * (5 << 20))
    for status, (path, *args) in statuses.items():
        got = subprocess.run(["curl", "--silent", "--output", os.devnull, "--write-out", "%{http_code}", f"{os.environ['API_URL']}/v3/{path}/",
                              "--header", f"x-api-key: {os.environ['API_KEY']}", *args], cwd=work, capture_output=True, text=True, timeout=60).stdout
        if got != str(status) or not re.search(rf"^\| [^|]*{status}", text, re.M):
            wrong.append(f"{status} is answered {got}, or not in the table of errors")
    if len(fields) < 7 or len(scenarios) < 9:
        wrong.append(f"only {len(fields)} fields and {len(scenarios)} scenarios were found")
    return wrong


failed = 0
for doc in ("docs/clients.md", "docs/integration-prompt.md"):
    blocks = re.findall(r"```(\w+)\n(.*?)```", (root / doc).read_text(), re.S)
    for i, (language, text) in enumerate(blocks):
        if "postern run" in text or language == "json" and "mcpServers" not in text:
            continue  # the agent runs already; a body that a command beside it sends
        env = dict(os.environ)
        if "postern keys" in text:  # in the repository, on the data folder of the running agent
            text = text.replace("bin/postern", f'{root}/bin/postern --data "$DATA"')
        r = subprocess.run(command(language, text, i), cwd=work, env=env, capture_output=True, text=True, timeout=120)
        wrong = f"exit {r.returncode}: {r.stderr}{r.stdout}" if r.returncode else expected(language, text, r.stdout)
        failed += wrong is not None
        print(f"{'ok   ' if wrong is None else 'FAIL '} {doc}: {language} example {i + 1}{'' if wrong is None else ': ' + wrong}")
for wrong in prompt_is_covered():
    failed += 1
    print(f"FAIL docs/integration-prompt.md: {wrong}")
shutil.rmtree(work)
sys.exit(1 if failed else 0)
