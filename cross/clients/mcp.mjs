// Drives a started agent with npm @didit-protocol/mcp-server, as an MCP client does:
// it starts the server as a child process and calls its tools over stdio.
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import path from "node:path";

const cache = process.env.CLIENTS_CACHE;
const require = createRequire(path.join(cache, "package.json"));
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");

const server = new StdioClientTransport({
  command: process.execPath,
  args: [path.join(cache, "node_modules/@didit-protocol/mcp-server/dist/index.js")],
  env: { PATH: process.env.PATH, DIDIT_API_BASE_URL: process.env.API_URL + "/v3", DIDIT_API_KEY: process.env.API_KEY },
});
const client = new Client({ name: "conformance", version: "1" }, { capabilities: {} });
await client.connect(server);

async function call(name, args = {}) {
  const r = await client.callTool({ name, arguments: args });
  const text = r.content.map((c) => c.text).join("");
  if (r.isError) throw new Error(`${name}: ${text}`);
  return JSON.parse(text);
}

async function refused(name, args, pattern) {
  await assert.rejects(call(name, args), pattern, `${name} should be refused`);
}

const faces = process.env.FACES;
const [a, b, other] = ["obama.jpg", "obama2.jpg", "biden.jpg"].map((f) => path.join(faces, f));

const tests = {
  async "face match, the same person"() {
    const r = await call("didit_face_match", { image_1_path: a, image_2_path: b, vendor_data: "mcp-1" });
    assert.equal(r.face_match.status, "Approved");
    assert.ok(r.face_match.score > 70, `score ${r.face_match.score}`);
    assert.equal(r.vendor_data, "mcp-1");
    for (const link of [r.face_match.source_image, r.face_match.target_image]) {
      const got = await fetch(link);
      assert.equal(got.status, 200);
      assert.equal(got.headers.get("content-type"), "image/jpeg");
    }
  },
  async "face match, two people"() {
    const r = await call("didit_face_match", { image_1_path: a, image_2_path: other });
    assert.equal(r.face_match.status, "Declined");
    assert.equal(r.face_match.warnings[0].risk, "LOW_FACE_MATCH_SIMILARITY");
  },
  async "face match, no picture"() {
    await refused("didit_face_match", { image_1_path: a, image_2_path: process.argv[1] }, /400/);
  },
  async "passive liveness"() {
    const r = await call("didit_passive_liveness", { image_path: a, vendor_data: "mcp-1" });
    assert.equal(r.liveness.method, "PASSIVE");
    assert.ok(["Approved", "Declined"].includes(r.liveness.status));
  },
  async "age estimation is refused clearly"() {
    await refused("didit_age_estimation", { image_path: a }, /400.*not available/);
  },
};

let workflow, session, list, destination;

Object.assign(tests, {
  async "workflows"() {
    const w = await call("didit_create_workflow", { workflow_label: "door", features: [{ feature: "LIVENESS" }, { feature: "FACE_MATCH", config: { face_match_score_review_threshold: 80 } }] });
    workflow = w.uuid;
    assert.ok(w.workflow_id);
    await call("didit_update_workflow", { workflow_id: workflow, workflow_label: "front door" });
    assert.equal((await call("didit_get_workflow", { workflow_id: w.workflow_id })).workflow_label, "front door");
    assert.ok((await call("didit_list_workflows")).results.some((r) => r.workflow_id === w.workflow_id));
    await refused("didit_create_workflow", { features: [{ feature: "AML" }] }, /400.*not available/);
    const other = await call("didit_create_workflow", { features: [{ feature: "LIVENESS" }] });
    await call("didit_delete_workflow", { workflow_id: other.uuid });
    await refused("didit_get_workflow", { workflow_id: other.uuid }, /404/);
  },
  async "sessions"() {
    const w = await call("didit_create_workflow", { features: [{ feature: "LIVENESS" }] });
    session = await call("didit_create_session", { workflow_id: w.uuid, vendor_data: "mcp-2", metadata: { a: 1 }, language: "en" });
    assert.match(session.url, /\/en\/session\//);
    assert.equal((await call("didit_get_session_decision", { session_id: session.session_id })).status, "Not Started");
    assert.equal((await call("didit_list_sessions", { vendor_data: "mcp-2" })).count, 1);
    await refused("didit_generate_session_pdf", { session_id: session.session_id }, /403/);
    await refused("didit_update_session_status", { session_id: session.session_id, new_status: "Approved" }, /400/);
    await call("didit_add_session_review", { session_id: session.session_id, comment: "seen" });
    assert.ok((await call("didit_list_session_reviews", { session_id: session.session_id })).length >= 1);
    await call("didit_delete_session", { session_id: session.session_id });
    await refused("didit_get_session_decision", { session_id: session.session_id }, /404/);
  },
  async "a saved face match is a session"() {
    const r = await call("didit_face_match", { image_1_path: a, image_2_path: b });
    const d = await call("didit_get_session_decision", { session_id: r.request_id });
    assert.equal(d.face_matches[0].score, r.face_match.score);
    const pdf = await call("didit_generate_session_pdf", { session_id: r.request_id });
    assert.match(pdf.raw, /^%PDF-/);
    await call("didit_update_session_status", { session_id: r.request_id, new_status: "Declined", comment: "no" });
    assert.equal((await call("didit_get_session_decision", { session_id: r.request_id })).status, "Declined");
  },
  async "lists and the blocklist"() {
    const all = await call("didit_list_lists", { list_type: "blocklist", entry_type: "face" });
    const block = all.results[0].uuid;
    const entry = await call("didit_upload_face_entry", { list_uuid: block, image_path: other, comment: "banned" });
    const found = await call("didit_face_search", { image_path: other });
    assert.equal(found.face_search.status, "Declined");
    assert.equal(found.face_search.matches[0].is_blocklisted, true);
    assert.equal((await call("didit_face_search", { image_path: a })).face_search.status, "Approved");
    await call("didit_delete_list_entry", { list_uuid: block, entry_uuid: entry.uuid });
    assert.equal((await call("didit_face_search", { image_path: other })).face_search.status, "Approved");
    list = await call("didit_create_list", { name: "staff", list_type: "custom", entry_type: "user" });
    await call("didit_create_list_entry", { list_uuid: list.uuid, value: "mcp-9" });
    assert.equal((await call("didit_list_entries", { list_uuid: list.uuid })).count, 1);
    await call("didit_update_list", { list_uuid: list.uuid, name: "people" });
    assert.equal((await call("didit_get_list", { list_uuid: list.uuid })).name, "people");
    await call("didit_delete_list", { list_uuid: list.uuid });
    await refused("didit_upload_face_entry", { list_uuid: block, image_path: process.argv[1] }, /400/);
  },
  async "webhook destinations"() {
    destination = await call("didit_create_webhook_destination", { label: "here", url: "http://127.0.0.1:9/hook", subscribed_events: ["status.updated"] });
    assert.equal(destination.secret_shared_key.length, 43);
    assert.ok((await call("didit_list_webhook_destinations")).some((d) => d.uuid === destination.uuid && !d.secret_shared_key));
    await call("didit_update_webhook_destination", { destination_uuid: destination.uuid, enabled: false });
    assert.equal((await call("didit_get_webhook_destination", { destination_uuid: destination.uuid })).enabled, false);
    await call("didit_delete_webhook_destination", { destination_uuid: destination.uuid });
    await refused("didit_get_webhook_destination", { destination_uuid: destination.uuid }, /404/);
  },
});

let failed = 0;
for (const [name, fn] of Object.entries(tests)) {
  try {
    await fn();
    console.log(`ok    mcp-server: ${name}`);
  } catch (e) {
    failed++;
    console.log(`FAIL  mcp-server: ${name}: ${e.message}`);
  }
}
await client.close();
process.exit(failed ? 1 : 0);
