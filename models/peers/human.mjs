// Describes faces with @vladmandic/human: reads a JSON list of JPEG files, writes
// {version, seconds, embeddings}, null where no face was found.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const tf = require('@tensorflow/tfjs');
const wasm = require('@tensorflow/tfjs-backend-wasm');
const jpeg = require('jpeg-js');
// Neither package exports these files by name.
const modules = path.join(import.meta.dirname, 'node_modules');
const home = path.join(modules, '@vladmandic/human');
const wasmFiles = path.join(modules, '@tensorflow/tfjs-backend-wasm/dist') + '/';
const { Human } = require(path.join(home, 'dist/human.node-wasm.js'));

const [list, out] = process.argv.slice(2);
const files = JSON.parse(fs.readFileSync(list, 'utf8'));
wasm.setWasmPaths(wasmFiles);

// tfjs loads models by fetch, which knows no files.
globalThis.fetch = async (url) => {
  const data = fs.readFileSync(String(url).replace('file://', ''));
  return {
    ok: true, status: 200, headers: { get: () => null },
    json: async () => JSON.parse(data), text: async () => data.toString(),
    arrayBuffer: async () => data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength),
  };
};

const off = { enabled: false };
const human = new Human({
  backend: 'wasm', modelBasePath: `file://${home}/models/`, debug: false, cacheSensitivity: 0, async: false,
  wasmPath: wasmFiles,
  filter: off, gesture: off, body: off, hand: off, object: off,
  face: {
    enabled: true, detector: { enabled: true, rotation: true, maxDetected: 5, return: false },
    mesh: { enabled: true }, iris: off, emotion: off, antispoof: off, liveness: off, description: { enabled: true },
  },
});
await human.load();

// main is the largest face.
function main(faces) {
  return faces.reduce((a, b) => (!a || b.box[2] * b.box[3] > a.box[2] * a.box[3] ? b : a), null);
}

const embeddings = [];
let seconds = 0;
for (const file of files) {
  const start = performance.now();
  const picture = jpeg.decode(fs.readFileSync(file), { useTArray: true, formatAsRGBA: false });
  const tensor = human.tf.tensor(picture.data, [1, picture.height, picture.width, 3], 'float32');
  const result = await human.detect(tensor);
  human.tf.dispose(tensor);
  const face = main(result.face);
  seconds += (performance.now() - start) / 1000;
  embeddings.push(face?.embedding?.length ? Array.from(face.embedding) : null);
}
fs.writeFileSync(out, JSON.stringify({ version: human.version, seconds, embeddings }));
