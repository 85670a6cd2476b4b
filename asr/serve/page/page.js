// The page of `asr serve`: files in, words out, each of which can be heard.
// Plain modules of the browser: no library, no build, no request to any other host.

import { record } from './microphone.js';
import { clock } from './timeline.js';
import { makeView } from './view.js';

const $ = (id) => document.getElementById(id);
// What stands where nothing is selected.
const welcome = $('welcome');
const AT_ONCE = 2;
const AUDIO = /\.(wav|wave|flac|ogg|oga|opus|mp3|aiff?|aifc|au|snd|sph|w64|caf|mp4|m4[ab]|aac|mov|mk[av]|webm|avi|wma|amr|3gp|wv)$/i;
const waiting = [];
// Models that hear one while one speaks.
const streaming = new Set();
let running = 0;
// Of the files that were added since nothing was left to do.
const batch = { n: 0, done: 0, failed: 0, left: 0 };

// --- the server

const key = () => sessionStorage.getItem('key');

async function ask(path, options = {}) {
  const headers = key() ? { Authorization: `Bearer ${key()}` } : {};
  for (;;) {
    const answer = await fetch(path, { ...options, headers });
    if (answer.ok) return answer;
    if (answer.status === 503) {
      const seconds = Number(answer.headers.get('retry-after')) || 1;
      await new Promise((wake) => { setTimeout(wake, 1000 * seconds); });
      continue;
    }
    if (answer.status === 401) $('key-form').hidden = false;
    let message = `the server answered ${answer.status}`;
    try { message = (await answer.json()).error.message; } catch { /* no JSON: the number says it */ }
    throw new Error(message);
  }
}

// What a browser says where nobody answers helps nobody.
const told = (error) => (error instanceof TypeError ? 'the server does not answer' : error.message);

async function listModels() {
  try {
    const { data } = await (await ask('v1/models')).json();
    $('model').replaceChildren(...data.map(({ id }) => new Option(id, id)));
    for (const { id, streams } of data) if (streams) streaming.add(id);
    $('key-form').hidden = true;
    say('');
  } catch (error) {
    say(told(error));
  }
}

function say(text) { $('status').textContent = text; }

function keywords() {
  return $('keywords').value.split(',').map((word) => word.trim()).filter(Boolean);
}

// --- files

function add(files) {
  const taken = [...files].filter((file) => AUDIO.test(file.name) || /^(audio|video)\//.test(file.type));
  const nameOf = (file) => file.webkitRelativePath || file.name;
  taken.sort((a, b) => nameOf(a).localeCompare(nameOf(b), undefined, { numeric: true }));
  batch.left += files.length - taken.length;
  // The last one that is entered is the first of the list.
  const entered = taken.reverse().map((file) => enter(nameOf(file), file)).reverse();
  if (entered.length) select(entered[0]);
  entered.forEach(queue);
  tellProgress();
}

function queue(result) {
  batch.n += 1;
  set(result, 'waiting');
  waiting.push(result);
  next();
}

function next() {
  while (running < AT_ONCE && waiting.length) {
    const result = waiting.shift();
    running += 1;
    transcribe(result).finally(() => {
      running -= 1;
      next();
    });
  }
  tellProgress();
}

function tellProgress() {
  const isOver = !waiting.length && !running;
  $('overall').hidden = isOver || batch.n < 2;
  $('overall').max = batch.n || 1;
  $('overall').value = batch.done;
  const parts = [isOver ? 'all done' : `${batch.done} of ${batch.n} done`];
  if (batch.failed) parts.push(`${batch.failed} failed`);
  if (batch.left) parts.push(`${batch.left} left out: no audio`);
  say(batch.n ? parts.join(', ') : parts.slice(1).join(', '));
  if (isOver) Object.assign(batch, { n: 0, done: 0, failed: 0, left: 0 });
}

async function transcribe(result) {
  if (result.removed) {
    batch.n -= 1;
    return;
  }
  set(result, 'running');
  result.model = $('model').value;
  const form = new FormData();
  form.append('model', result.model);
  form.append('response_format', 'transcript');
  for (const word of keywords()) form.append('keywords[]', word);
  form.append('file', result.file, result.file.name);
  const begun = performance.now();
  try {
    const answer = await ask('v1/audio/transcriptions', { method: 'POST', body: form, signal: result.abort.signal });
    result.transcript = await answer.json();
    result.took = (performance.now() - begun) / 1000;
    result.ignored = /keywords/.test(answer.headers.get('x-ignored-fields') ?? '');
    set(result, 'done');
  } catch (error) {
    batch.failed += !result.removed;
    result.error = told(error);
    set(result, 'failed');
  }
  batch.done += 1;
}

// --- the list

const results = [];
let selected = null;

function enter(name, file = null) {
  const item = $('item').content.cloneNode(true).querySelector('li');
  const result = { name, file, item, abort: new AbortController(), removed: false, state: 'waiting' };
  item.querySelector('.name').textContent = name;
  item.querySelector('.item').addEventListener('click', () => select(result));
  const remove = item.querySelector('.remove');
  remove.setAttribute('aria-label', `Remove ${name}`);
  remove.addEventListener('click', () => drop(result));
  result.view = makeView(result, { ask, say, again: () => queue(result) });
  results.unshift(result);
  $('list').prepend(item);
  return result;
}

function select(result) {
  selected?.item.querySelector('.item').removeAttribute('aria-current');
  selected?.view.leave();
  selected = result;
  const article = result?.view.article ?? welcome;
  $('main').replaceChildren(article);
  result?.item.querySelector('.item').setAttribute('aria-current', 'true');
  result?.view.update();
}

function drop(result) {
  result.removed = true;
  result.abort.abort();
  result.view.end();
  const at = results.indexOf(result);
  results.splice(at, 1);
  result.item.remove();
  if (selected === result) select(results[Math.min(at, results.length - 1)] ?? null);
  (selected?.item.querySelector('.item') ?? $('choose')).focus();
}

function set(result, state) {
  result.state = state;
  const { transcript } = result;
  result.item.querySelector('.item').dataset.state = state;
  result.item.querySelector('progress').hidden = state !== 'running';
  result.item.querySelector('.about').textContent = {
    live: 'listening',
    waiting: 'waiting',
    running: 'recognising',
    failed: result.error?.replace(`${result.file.name}: `, ''),
    done: transcript && `${clock(transcript.duration)} · ${transcript.text || 'nothing was said'}`,
  }[state];
  if (selected === result) result.view.update();
}

// --- the microphone

let recording = null;

async function speak() {
  if (recording) {
    recording.end();
    return;
  }
  const name = `recording ${new Date().toTimeString().slice(0, 8)}`;
  const model = $('model').value;
  let result = null;
  // Nothing to end while the browser asks whether it may.
  recording = { end() {} };
  say('');
  try {
    recording = await record({
      name: `${name.replaceAll(':', '-')}.wav`,
      live: streaming.has(model) ? { model, keywords: keywords(), key: key() } : null,
      heard(seconds, level) {
        $('record-text').textContent = `Stop (${clock(seconds)})`;
        result?.view.heard(level);
      },
      shown: (committed, tentative) => result?.view.spoken(committed, tentative),
      failed: (message) => say(`words come when you stop: ${message}`),
      ended(file) {
        recording = null;
        $('record').setAttribute('aria-pressed', 'false');
        $('record-text').textContent = 'Record';
        if (result.removed) return;
        result.file = file;
        queue(result);
      },
    });
  } catch (error) {
    recording = null;
    say(`no microphone: ${error.message}`);
    return;
  }
  result = enter(name);
  result.abort.signal.addEventListener('abort', () => {
    if (result.state === 'live') recording?.end();
  });
  $('record').setAttribute('aria-pressed', 'true');
  set(result, 'live');
  select(result);
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

for (const name of ['dragenter', 'dragover']) {
  document.addEventListener(name, (event) => { event.preventDefault(); $('main').classList.add('over'); });
}
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) $('main').classList.remove('over');
});
document.addEventListener('drop', async (event) => {
  event.preventDefault();
  $('main').classList.remove('over');
  add(await dropped(event.dataTransfer.items));
});
for (const [button, input] of [['choose', 'files'], ['choose-folder', 'folder']]) {
  $(button).addEventListener('click', () => $(input).click());
  $(input).addEventListener('change', () => { add($(input).files); $(input).value = ''; });
}
$('record').addEventListener('click', speak);
$('key-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  sessionStorage.setItem('key', $('key').value);
  await listModels();
});
listModels();
