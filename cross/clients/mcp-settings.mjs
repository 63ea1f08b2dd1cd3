// Starts the MCP server exactly as the settings on stdin say, as an assistant's program
// does, and calls a tool. Only the address and the key are those of the started agent.
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import path from "node:path";
import { readFileSync } from "node:fs";

const cache = process.env.CLIENTS_CACHE;
const require = createRequire(path.join(cache, "package.json"));
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");

const servers = Object.values(JSON.parse(readFileSync(0, "utf8")).mcpServers);
assert.equal(servers.length, 1);
const { command, args, env } = servers[0];
const address = new URL(env.DIDIT_API_BASE_URL);
assert.equal(address.pathname, "/v3", "the address ends in /v3");
env.DIDIT_API_BASE_URL = process.env.API_URL + address.pathname;
env.DIDIT_API_KEY = process.env.API_KEY;

// In the folder where the pinned package is installed npx takes that one.
const transport = new StdioClientTransport({ command, args, cwd: cache, env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env } });
const client = new Client({ name: "settings", version: "1" }, { capabilities: {} });
await client.connect(transport);
const names = (await client.listTools()).tools.map((t) => t.name);
for (const name of process.argv.slice(2)) assert.ok(names.includes(name), `no tool ${name}`);
const r = await client.callTool({ name: "didit_face_match", arguments: {
  image_1_path: path.join(process.env.FACES, "obama.jpg"), image_2_path: path.join(process.env.FACES, "obama2.jpg") } });
assert.ok(!r.isError, JSON.stringify(r.content));
assert.equal(JSON.parse(r.content[0].text).face_match.status, "Approved");
await client.close();
