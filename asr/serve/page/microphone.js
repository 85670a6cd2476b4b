// The microphone: what it hears becomes a file, and words while one speaks where the model can do that.

import { listen } from './live.js';

// Seconds of sound that are one level.
const LEVEL_S = 0.03;

// name: of the file. live: what `listen` asks, or null. heard(seconds, level): all that was heard by now, and how loud it
// is. shown, failed: see `listen`. ended(file): the recording, when `end` of what is returned is called.
export async function record({ name, live, heard, shown, failed, ended }) {
  if (!navigator.mediaDevices) throw new Error('browsers give it only to pages of this machine, or over https');
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  // At the device's own rate: the server resamples, as browsers do not agree on who may.
  const context = new AudioContext();
  await context.audioWorklet.addModule('recorder.js');
  const source = context.createMediaStreamSource(stream);
  const node = new AudioWorkletNode(context, 'recorder');
  const rate = context.sampleRate;
  const blocks = [];
  let n = 0;
  let n_told = 0;
  let level = 0;
  let words = null;
  try {
    words = live && listen({ ...live, rate, shown, failed });
  } catch (error) {
    // A key that is no name of a protocol, for one.
    failed(error.message);
  }
  node.port.onmessage = ({ data }) => {
    blocks.push(data);
    n += data.length;
    words?.hear(data);
    for (const sample of data) level = Math.max(level, Math.abs(sample));
    if (n - n_told >= LEVEL_S * rate) {
      heard(n / rate, level);
      n_told = n;
      level = 0;
    }
  };
  source.connect(node);
  return {
    end() {
      for (const track of stream.getTracks()) track.stop();
      node.port.onmessage = null;
      context.close();
      words?.end();
      ended(new File([wav(blocks, n, rate)], name, { type: 'audio/wav' }));
    },
  };
}

// Blocks of samples as a file of PCM with 16 bits.
export function wav(blocks, n, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * n));
  const put = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  put(0, 'RIFF'); view.setUint32(4, 36 + 2 * n, true); put(8, 'WAVEfmt ');
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  put(36, 'data'); view.setUint32(40, 2 * n, true);
  let at = 44;
  for (const block of blocks) {
    for (const sample of block) {
      view.setInt16(at, 32767 * Math.max(-1, Math.min(1, sample)), true);
      at += 2;
    }
  }
  return view.buffer;
}
