// The page of `asr serve`: files in, words out, each of which can be heard.
// Plain modules of the browser: no library, no build, no request to any other host.

import { listen } from './live.js';

const $ = (id) => document.getElementById(id);
const AT_ONCE = 2;
const AUDIO = /\.(wav|wave|flac|ogg|oga|opus|mp3|aiff?|aifc|au|snd|sph|w64|caf|mp4|m4[ab]|aac|mov|mk[av]|webm|avi|wma|amr|3gp|wv)$/i;
const waiting = [];
// Models that hear one while one speaks.
const streaming = new Set();
let running = 0;

// --- the server

function headers() {
  const key = sessionStorage.getItem('key');
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  if (answer.ok) return answer;
  if (answer.status === 401) $('key-form').hidden = false;
  let message = `the server answered ${answer.status}`;
  try { message = (await answer.json()).error.message; } catch { /* no JSON: the number says it */ }
  const error = new Error(message);
  error.retry = answer.status === 503 ? Number(answer.headers.get('retry-after')) || 1 : 0;
  throw error;
}

async function listModels() {
  try {
    const { data } = await (await ask('v1/models')).json();
    $('model').replaceChildren(...data.map(({ id }) => new Option(id, id)));
    for (const { id, streams } of data) if (streams) streaming.add(id);
    $('key-form').hidden = true;
    say('');
  } catch (error) {
    say(error.message);
  }
}

function say(text) { $('status').textContent = text; }

// --- files

function add(files) {
  const taken = [...files].filter((file) => AUDIO.test(file.name) || /^(audio|video)\//.test(file.type));
  const left = files.length - taken.length;
  if (left) say(`${left} of ${files.length} files are no audio and were left out`);
  for (const file of taken) waiting.push(show(file));
  next();
}

function next() {
  while (running < AT_ONCE && waiting.length) {
    const result = waiting.shift();
    if (result.removed) continue;
    running += 1;
    transcribe(result).finally(() => {
      running -= 1;
      next();
      tellProgress();
    });
  }
  tellProgress();
}

function tellProgress() {
  const left = waiting.length + running;
  if (left) say(`${left} to go`);
  else if ($('status').textContent.endsWith('to go')) say('all done');
}

function keywords() {
  return $('keywords').value.split(',').map((word) => word.trim()).filter(Boolean);
}

async function transcribe(result) {
  const form = new FormData();
  form.append('model', $('model').value);
  form.append('response_format', 'transcript');
  for (const word of keywords()) form.append('keywords[]', word);
  form.append('file', result.file, result.file.name);
  const { article } = result;
  const begun = performance.now();
  try {
    for (;;) {
      try {
        const answer = await ask('v1/audio/transcriptions', { method: 'POST', body: form, signal: result.abort.signal });
        result.transcript = await answer.json();
        break;
      } catch (error) {
        if (!error.retry) throw error;
        await new Promise((wake) => { setTimeout(wake, 1000 * error.retry); });
      }
    }
    const seconds = result.transcript.duration;
    const took = (performance.now() - begun) / 1000;
    article.querySelector('.facts').textContent = `${clock(seconds)}, ${Math.round(seconds / took)} × real time`;
    await write(result);
  } catch (error) {
    if (result.removed) return;
    const line = article.querySelector('.error');
    line.textContent = error.message;
    line.hidden = false;
  } finally {
    article.querySelector('progress').hidden = true;
  }
}

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, '0')}`;
}

// --- a transcript

function show(file) {
  const article = $('result').content.cloneNode(true).querySelector('article');
  const result = { file, article, abort: new AbortController(), removed: false };
  article.querySelector('h2').textContent = file.webkitRelativePath || file.name;
  article.querySelector('progress').setAttribute('aria-label', `recognising ${file.name}`);
  article.querySelector('.remove').addEventListener('click', () => {
    result.removed = true;
    result.abort.abort();
    if (result.url) URL.revokeObjectURL(result.url);
    article.remove();
  });
  for (const button of article.querySelectorAll('[data-format]')) {
    button.addEventListener('click', () => download(result, button));
  }
  $('results').prepend(article);
  return result;
}

async function write(result) {
  const { article, transcript } = result;
  const words = transcript.words.length ? transcript.words : transcript.labels;
  const line = article.querySelector('.words');
  line.replaceChildren();
  line.hidden = false;
  line.setAttribute('role', 'group');
  line.setAttribute('aria-label', 'Words');
  if (!words.length) line.textContent = '(nothing was said)';
  const buttons = words.map((word, index) => asButton(result, word, index));
  for (const button of buttons) line.append(button, ' ');
  line.addEventListener('keydown', (event) => walk(event, buttons));
  if (transcript.words.length && transcript.labels.length) {
    const labels = article.querySelector('.labels');
    labels.hidden = false;
    labels.querySelector('summary').textContent = `${transcript.labels.length} ${transcript.unit}s`;
    const inside = labels.querySelector('p');
    labels.addEventListener('toggle', () => {
      if (inside.childElementCount) return;
      transcript.labels.forEach((label, index) => inside.append(asButton(result, label, index), ' '));
    });
  }
  article.querySelector('.downloads').hidden = false;
  await addSound(result, words, buttons);
}

function asButton(result, word, index) {
  const button = document.createElement('button');
  button.type = 'button';
  const sure = word.confidence ?? 1;
  button.className = `word c${Math.min(4, Math.floor(5 * sure))}`;
  button.textContent = word.label;
  button.tabIndex = index ? -1 : 0;
  button.title = `${word.start_s.toFixed(2)} to ${word.end_s.toFixed(2)} s, confidence ${sure.toFixed(2)}`;
  button.addEventListener('click', () => hear(result, word));
  return button;
}

function walk(event, buttons) {
  const at = buttons.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (at < 0 || to === undefined || !buttons[to]) return;
  event.preventDefault();
  buttons[at].tabIndex = -1;
  buttons[to].tabIndex = 0;
  buttons[to].focus();
}

function hear(result, word) {
  const { audio } = result;
  if (!audio) return;
  result.stop = word.end_s;
  audio.currentTime = word.start_s;
  audio.play();
}

async function addSound(result, words, buttons) {
  const { article, file } = result;
  const audio = article.querySelector('audio');
  result.url = URL.createObjectURL(file);
  audio.src = result.url;
  result.audio = audio;
  article.querySelector('.sound').hidden = false;
  audio.addEventListener('seeking', () => { if (audio.paused) result.stop = undefined; });
  audio.addEventListener('error', () => { article.querySelector('.sound').hidden = true; });
  const canvas = article.querySelector('canvas');
  canvas.setAttribute('aria-label', `Waveform of ${file.name}`);
  const levels = await levelsOf(file);
  const draw = () => paint(canvas, levels, audio, result.transcript.duration);
  const follow = () => {
    if (result.stop !== undefined && audio.currentTime >= result.stop) {
      audio.pause();
      result.stop = undefined;
    }
    const now = audio.currentTime;
    buttons.forEach((button, index) => {
      const { start_s: start, end_s: end } = words[index];
      button.classList.toggle('playing', !audio.paused && start <= now && now < end);
    });
    draw();
    if (!audio.paused) requestAnimationFrame(follow);
  };
  for (const name of ['play', 'pause', 'seeked']) audio.addEventListener(name, follow);
  canvas.addEventListener('click', (event) => {
    const { left, width } = canvas.getBoundingClientRect();
    result.stop = undefined;
    audio.currentTime = ((event.clientX - left) / width) * result.transcript.duration;
    audio.play();
  });
  new ResizeObserver(draw).observe(canvas);
}

async function levelsOf(file) {
  // Beyond this a browser would need gigabytes to draw a line.
  if (file.size > 1e8) return null;
  try {
    const context = new OfflineAudioContext(1, 1, 16000);
    const samples = (await context.decodeAudioData(await file.arrayBuffer())).getChannelData(0);
    const n = 800;
    const step = Math.max(1, Math.floor(samples.length / n));
    const levels = new Float32Array(Math.min(n, samples.length));
    for (let i = 0; i < levels.length; i += 1) {
      let most = 0;
      for (let j = i * step; j < (i + 1) * step; j += 1) most = Math.max(most, Math.abs(samples[j]));
      levels[i] = most;
    }
    return levels;
  } catch {
    return null;
  }
}

function paint(canvas, levels, audio, duration) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext('2d');
  pen.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const at = duration ? (audio.currentTime / duration) * width : 0;
  if (levels) {
    const most = Math.max(0.01, ...levels);
    for (let x = 0; x < width; x += 3) {
      const level = levels[Math.floor((x / width) * levels.length)] / most;
      const high = Math.max(1, level * (height - 8));
      pen.fillStyle = style.getPropertyValue(x < at ? '--accent' : '--faint');
      pen.fillRect(x, (height - high) / 2, 2, high);
    }
  }
  pen.fillStyle = style.getPropertyValue('--accent');
  pen.fillRect(at, 0, 1.5, height);
}

async function download(result, button) {
  const name = button.dataset.format;
  const { transcript, file } = result;
  try {
    if (name === 'copy') {
      await navigator.clipboard.writeText(transcript.text);
      say('copied');
      return;
    }
    const body = JSON.stringify(transcript);
    const answer = await ask(`format/${name}`, { method: 'POST', body });
    const link = document.createElement('a');
    link.href = URL.createObjectURL(await answer.blob());
    link.download = `${file.name.replace(/\.[^.]*$/, '')}.${name === 'textgrid' ? 'TextGrid' : name}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    say(error.message);
  }
}

// --- the microphone

let recording = null;

async function record() {
  if (recording) {
    recording.end();
    return;
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  } catch (error) {
    say(`no microphone: ${error.message}`);
    return;
  }
  // At the device's own rate: the server resamples, as browsers do not agree on who may.
  const context = new AudioContext();
  await context.audioWorklet.addModule('recorder.js');
  const source = context.createMediaStreamSource(stream);
  const node = new AudioWorkletNode(context, 'recorder');
  const blocks = [];
  let n = 0;
  const spoken = streaming.has($('model').value) ? speak(context.sampleRate) : null;
  node.port.onmessage = ({ data }) => {
    blocks.push(data);
    n += data.length;
    spoken?.live?.hear(data);
    $('record-text').textContent = `Stop (${clock(n / context.sampleRate)})`;
  };
  source.connect(node);
  $('record').setAttribute('aria-pressed', 'true');
  recording = {
    end() {
      for (const track of stream.getTracks()) track.stop();
      node.port.onmessage = null;
      context.close();
      recording = null;
      $('record').setAttribute('aria-pressed', 'false');
      $('record-text').textContent = 'Record';
      const name = `recording ${new Date().toTimeString().slice(0, 8).replaceAll(':', '-')}.wav`;
      const file = new File([wav(blocks, n, context.sampleRate)], name, { type: 'audio/wav' });
      if (spoken) spoken.end(file);
      else add([file]);
    },
  };
}

// Words appear while one speaks; when the recording ends, its file takes their place.
function speak(rate) {
  const result = show({ name: 'Listening' });
  const { article } = result;
  const line = article.querySelector('.words');
  const [said, likely] = ['committed', 'tentative'].map((name) => {
    const part = document.createElement('span');
    part.className = name;
    return part;
  });
  line.setAttribute('role', 'log');
  line.setAttribute('aria-label', 'Words');
  // What may change is for the eye alone.
  likely.setAttribute('aria-hidden', 'true');
  line.append(said, ' ', likely);
  line.hidden = false;
  article.querySelector('progress').hidden = true;
  result.abort.signal.addEventListener('abort', () => recording?.end());
  let live = null;
  const failed = (message) => say(`words come when you stop: ${message}`);
  try {
    live = listen({
      model: $('model').value,
      keywords: keywords(),
      rate,
      key: sessionStorage.getItem('key'),
      shown(committed, tentative) {
        if (said.textContent !== committed) said.textContent = committed;
        likely.textContent = tentative;
      },
      failed,
    });
  } catch (error) {
    // A key that is no name of a protocol, for one.
    failed(error.message);
  }
  return {
    live,
    end(file) {
      live?.end();
      if (result.removed) return;
      result.file = file;
      article.querySelector('h2').textContent = file.name;
      article.querySelector('progress').hidden = false;
      waiting.push(result);
      next();
    },
  };
}

function wav(blocks, n, rate) {
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

// --- what drops

async function dropped(items) {
  const files = [];
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  async function take(entry) {
    if (entry.isFile) {
      files.push(await new Promise((found, failed) => { entry.file(found, failed); }));
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((found, failed) => { reader.readEntries(found, failed); });
      if (!some.length) return;
      for (const each of some) await take(each);
    }
  }
  for (const entry of entries) await take(entry);
  return files;
}

const drop = $('drop');
for (const name of ['dragenter', 'dragover']) {
  document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add('over'); });
}
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) drop.classList.remove('over');
});
document.addEventListener('drop', async (event) => {
  event.preventDefault();
  drop.classList.remove('over');
  add(await dropped(event.dataTransfer.items));
});
for (const [button, input] of [['choose', 'files'], ['choose-folder', 'folder']]) {
  $(button).addEventListener('click', () => $(input).click());
  $(input).addEventListener('change', () => { add($(input).files); $(input).value = ''; });
}
$('record').addEventListener('click', record);
$('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  sessionStorage.setItem('key', $('key').value);
  listModels();
});
listModels();
