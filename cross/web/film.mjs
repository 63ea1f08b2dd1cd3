// Films for the browser's fake camera, cut from the sample film: an AVI of JPEGs. The
// browser plays the bare JPEGs, one after another, over and over.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

const framesASecond = 20; // of the sample film

// framesOf reads the JPEGs of the film: chunks "00dc" of the list "movi", each with its
// size before the picture.
function framesOf(film) {
  const raw = readFileSync(film), frames = [];
  for (let at = raw.indexOf('movi') + 4; at + 8 < raw.length;) {
    const name = raw.toString('latin1', at, at + 4), size = raw.readUInt32LE(at + 4);
    if (name === 'idx1') break;
    if (name === '00dc') frames.push(raw.subarray(at + 8, at + 8 + size));
    at += 8 + size + (size % 2);
  }
  return frames;
}

// cut writes the part of the film from one second to another, forth and back, so that
// its repetition does not jump.
export function cut(film, out, from, to) {
  const part = framesOf(film).slice(from * framesASecond, to * framesASecond);
  if (part.length < 10) throw new Error(`${film} ends before second ${to}`);
  writeFileSync(out, Buffer.concat([...part, ...part.slice(1, -1).reverse()]));
  return out;
}

// thin writes each nth picture of the film into a folder, for an agent that plays them
// in lock step: quick, and no slower machine misses any.
export function thin(film, folder, n) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  framesOf(film).forEach((jpeg, i) => { if (i % n === 0) writeFileSync(`${folder}/${String(i).padStart(5, '0')}.jpg`, jpeg); });
}

// scenes of the sample film, in seconds, with nobody coming or going.
export const scenes = { enrolled: [6.5, 11.5], stranger: [21, 24.5], again: [33, 35.5], print: [41.5, 45.5], nobody: [0, 2.5] };
