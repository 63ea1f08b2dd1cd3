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
  env: { PATH: process.env.PATH, DIDIT_API_BASE_URL: process.env.POSTERN_URL + "/v3", DIDIT_API_KEY: process.env.POSTERN_API_KEY },
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
