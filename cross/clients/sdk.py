"""Drives a started agent with PyPI didit-sdk, its command line and its webhook guard."""

import base64
import http.server
import json
import os
import queue
import subprocess
import sys
import threading
import time
import uuid

import httpx
from didit import Didit
from didit.errors import (
    DiditAPIError,
    DiditAuthenticationError,
    DiditNotFoundError,
    DiditSignatureError,
)
from didit.webhooks import parse_webhook_payload, verify_webhook_signature

URL, KEY = os.environ["API_URL"], os.environ["API_KEY"]
FACES = os.environ["FACES"]
client = Didit(api_key=KEY, base_url=URL + "/v3")


def api(method: str, path: str, **kw):
    """What the SDK has no method for."""
    r = httpx.request(method, URL + path, headers={"x-api-key": KEY}, timeout=30, **kw)
    assert r.status_code < 300, f"{method} {path}: {r.status_code} {r.text}"
    return r.json() if r.content else None


def picture(name: str) -> bytes:
    with open(os.path.join(FACES, name), "rb") as f:
        return f.read()


class Receiver:
    """A webhook receiver on this machine."""

    def __init__(self):
        self.got: queue.Queue = queue.Queue()
        got = self.got

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got.put((dict(self.headers), body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def wait(self, session_id: str, status: str):
        """The delivery about a session's status; others before it are passed over."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            headers, body = self.got.get(timeout=30)
            event = json.loads(body)
            if event["session_id"] == session_id and event["status"] == status:
                return headers, body
        raise AssertionError(f"no webhook about {session_id} {status}")


def verified(workflow: str, face: str, **kw):
    """A session whose person has shown a face."""
    s = client.sessions.create(workflow_id=workflow, portrait_image=base64.b64encode(picture("obama.jpg")).decode(), **kw)
    r = httpx.post(
        URL + "/v3/session/hosted/face/",
        headers={"Session-Token": s.session_token},
        files={"image": ("me.jpg", picture(face))},
        timeout=30,
    )
    assert r.status_code == 200, r.text
    return s


receiver = Receiver()
state: dict = {}


def test_healthcheck():
    assert client.healthcheck().status == "ok"


def test_workflow_and_destination():
    w = api("POST", "/v3/workflows/", json={"workflow_label": "door", "features": [{"feature": "FACE_MATCH"}]})
    state["workflow"] = w["uuid"]
    d = api("POST", "/v3/webhook/destinations/", json={"label": "here", "url": receiver.url, "subscribed_events": ["status.updated"]})
    state["secret"] = d["secret_shared_key"]


def test_create_and_get():
    vendor = "sdk-" + uuid.uuid4().hex
    s = client.sessions.create(workflow_id=state["workflow"], vendor_data=vendor, metadata={"a": [1, 2]}, language="en",
                               portrait_image=base64.b64encode(picture("obama.jpg")).decode())
    assert s.status == "Not Started" and s.url and s.session_token
    assert client.sessions.get(s.session_id).session_id == s.session_id
    again = client.sessions.create(workflow_id=state["workflow"], vendor_data=vendor,
                                   portrait_image=base64.b64encode(picture("obama.jpg")).decode())
    assert again.session_id == s.session_id, "an unfinished session is reused"


def test_approved_decision_and_webhook():
    s = verified(state["workflow"], "obama2.jpg", vendor_data="sdk-approved")
    d = client.sessions.get_decision(s.session_id)
    assert d.status == "Approved", d
    assert d.face_matches and d.face_matches[0].score > 70
    headers, body = receiver.wait(s.session_id, "Approved")
    assert verify_webhook_signature(body, headers, state["secret"])
    payload = parse_webhook_payload(body, headers, state["secret"])
    assert payload.session_id == s.session_id
    try:
        parse_webhook_payload(body.replace(b"Approved", b"Declined"), headers, state["secret"])
        raise AssertionError("a forged webhook passed")
    except DiditSignatureError:
        pass
    state["approved"] = s.session_id


def test_declined_decision():
    s = verified(state["workflow"], "biden.jpg", vendor_data="sdk-declined")
    for _ in range(5):
        d = client.sessions.get_decision(s.session_id)
        if d.status == "Declined":
            break
        r = httpx.post(URL + "/v3/session/hosted/face/", headers={"Session-Token": s.session_token},
                       files={"image": ("me.jpg", picture("biden.jpg"))}, timeout=30)
        assert r.status_code == 200, r.text
    assert d.status == "Declined", d
    receiver.wait(s.session_id, "Declined")


def test_list():
    page = client.sessions.list(status="Approved", limit=1)
    assert page.count >= 1 and len(page.results) == 1
    mine = client.sessions.list(vendor_data="sdk-approved")
    assert [r.session_id for r in mine.results] == [state["approved"]]
    assert client.sessions.list(date_from="2001-01-01T00:00:00+00:00", date_to="2001-01-02T00:00:00+00:00").count == 0


def test_pdf():
    pdf = client.sessions.generate_pdf_report(state["approved"])
    assert pdf.startswith(b"%PDF-") and len(pdf) > 1000


def test_update_and_resubmit():
    assert client.sessions.update_status(state["approved"], "Declined", comment="second look").session_id == state["approved"]
    d = client.sessions.get_decision(state["approved"])
    assert d.status == "Declined" and d.reviews
    client.sessions.resubmit(state["approved"], ["feature_face_match_1:FACE_MATCH"], comment="again")
    assert client.sessions.get(state["approved"]).status == "Resubmitted"


def test_saved_face_match_is_a_session():
    r = api("POST", "/v3/face-match/", files={"user_image": ("a.jpg", picture("obama.jpg")), "ref_image": ("b.jpg", picture("obama2.jpg"))})
    d = client.sessions.get_decision(r["request_id"])
    assert d.status == "Approved" and d.face_matches[0].score == r["face_match"]["score"]


def test_errors():
    for call, kind in (
        (lambda: client.sessions.get_decision(str(uuid.uuid4())), DiditNotFoundError),
        (lambda: client.sessions.get_decision("auth-probe-check"), DiditNotFoundError),
        (lambda: client.sessions.create(workflow_id=str(uuid.uuid4())), DiditAPIError),
        (lambda: Didit(api_key="wrong", base_url=URL + "/v3").sessions.get_decision(state["approved"]), DiditAuthenticationError),
    ):
        try:
            call()
        except kind:
            continue
        raise AssertionError(f"no {kind.__name__}")


def test_doctor():
    env = dict(os.environ, DIDIT_API_KEY=KEY, DIDIT_BASE_URL=URL + "/v3", DIDIT_WEBHOOK_SECRET=state["secret"])
    r = subprocess.run([sys.executable, "-m", "didit.cli", "doctor", "--strict"], env=env, capture_output=True, text=True, timeout=60)
    assert r.returncode == 0, r.stdout + r.stderr
    bad = dict(env, DIDIT_API_KEY="wrong")
    r = subprocess.run([sys.executable, "-m", "didit.cli", "doctor", "--strict"], env=bad, capture_output=True, text=True, timeout=60)
    assert r.returncode != 0, "doctor is content with a wrong key"


failed = 0
for name, fn in list(globals().items()):
    if not name.startswith("test_"):
        continue
    try:
        fn()
        print(f"ok    didit-sdk: {name[5:]}")
    except Exception as e:  # every test is told, then the run fails
        failed += 1
        print(f"FAIL  didit-sdk: {name[5:]}: {type(e).__name__}: {e}")
sys.exit(1 if failed else 0)
