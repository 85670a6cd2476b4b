// One transcript: its words, its sound, and on demand its phones and what the net said of them.

import { wav } from './microphone.js';
import { bars, clock, highest, makeTimeline, sureness, walk } from './timeline.js';

const RATE = 16000;
// Peaks of the waveform to a second.
const PEAKS_S = 200;
// Beyond so many bytes a browser would need gigabytes to draw a line.
const MOST_BYTES = 1e8;
// The server hears a file of up to so many seconds as a whole, else so many around what is asked.
const WHOLE_S = 30;
const CONTEXT_S = 10;

// The last of some segments that has begun at a time; -1 where none has.
function lastBegun(segments, time) {
  let [low, high] = [0, segments.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (segments[middle].start_s <= time) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// Samples of the file that was looked at last: those of all would take too much room.
let decoded = { file: null, samples: null };

// Mono samples of a file at RATE; null where the browser cannot read it.
function samplesOf(file) {
  if (decoded.file !== file) decoded = { file, samples: decode(file).catch(() => null) };
  return decoded.samples;
}

async function decode(file) {
  if (file.size > MOST_BYTES) return null;
  const context = new OfflineAudioContext(1, 1, RATE);
  const sound = await context.decodeAudioData(await file.arrayBuffer());
  const samples = sound.getChannelData(0);
  for (let channel = 1; channel < sound.numberOfChannels; channel += 1) {
    sound.getChannelData(channel).forEach((sample, i) => { samples[i] += sample; });
  }
  return sound.numberOfChannels > 1 ? samples.map((sample) => sample / sound.numberOfChannels) : samples;
}

function peaksOf(samples) {
  const step = RATE / PEAKS_S;
  const peaks = new Float32Array(Math.ceil(samples.length / step));
  samples.forEach((sample, i) => {
    const at = Math.floor(i / step);
    peaks[at] = Math.max(peaks[at], Math.abs(sample));
  });
  const most = peaks.reduce((a, b) => Math.max(a, b), 0.01);
  return peaks.map((peak) => peak / most);
}

export function makeView(result, { ask, say, again }) {
  const article = document.getElementById('view').content.cloneNode(true).querySelector('article');
  const part = (selector) => article.querySelector(selector);
  const [audio, script, seek] = [part('audio'), part('.words'), part('.seek input')];
  const timeline = makeTimeline(article, { hear, jump, emissions, say });
  const levels = [];
  let shown = null;
  let url = null;
  let stop;
  let words = [];
  let buttons = [];
  let lit = null;
  let peaks = null;
  let coarse = [];

  // --- what is said of it

  function update() {
    const { state, transcript } = result;
    const isDone = state === 'done';
    part('h2').textContent = result.name;
    part('.actions').hidden = !['done', 'failed'].includes(state);
    part('.downloads').hidden = !isDone;
    part('.error').hidden = state !== 'failed';
    part('.error').textContent = state === 'failed' ? result.error : '';
    part('.microphone').hidden = state !== 'live';
    part('.busy').hidden = !['waiting', 'running'].includes(state);
    part('.busy progress').hidden = state !== 'running';
    part('.busy p').textContent = state === 'running' ? 'Recognising …' : 'Waiting for its turn …';
    for (const selector of ['.words', '.legend', '.sound']) part(selector).hidden = !isDone;
    part('.facts').textContent = '';
    if (!isDone) {
      audio.pause();
      return;
    }
    const speed = Math.round(transcript.duration / result.took);
    const facts = [clock(transcript.duration), `${spoken().length} ${unitOf()}`, result.model, `${speed} × real time`];
    if (result.ignored) facts.push('this model searches no words: those to listen for have no effect');
    part('.facts').textContent = facts.join(' · ');
    if (shown !== transcript) {
      shown = transcript;
      fill();
    } else timeline.draw();
  }

  const spoken = () => (result.transcript.words.length ? result.transcript.words : result.transcript.labels);
  const unitOf = () => (result.transcript.words.length ? 'words' : `${result.transcript.unit}s`);

  function fill() {
    const { transcript } = result;
    words = spoken();
    buttons = words.map((word, index) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.className = `word c${sureness(word)}`;
      button.textContent = word.label;
      button.tabIndex = index ? -1 : 0;
      button.title = `${word.start_s.toFixed(2)} to ${word.end_s.toFixed(2)} s, confidence ${(word.confidence ?? 1).toFixed(2)}`;
      return button;
    });
    const starts = (transcript.segments ?? []).map((segment) => segment.start_s);
    script.replaceChildren();
    let line = null;
    buttons.forEach((button, index) => {
      const start = starts.length > 1 && words[index].start_s >= starts[0] ? starts.shift() : null;
      if (!line || start !== null) {
        line = document.createElement('p');
        script.append(line);
        if (start !== null) line.append(timeButton(start));
        line.classList.toggle('part', start !== null);
      }
      line.append(button, ' ');
    });
    if (!words.length) script.textContent = '(nothing was said)';
    addSound();
  }

  function timeButton(start) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'time';
    button.textContent = clock(start);
    button.setAttribute('aria-label', `hear from ${clock(start)}`);
    button.addEventListener('click', () => jump(start, true));
    return button;
  }

  script.addEventListener('click', (event) => {
    const at = buttons.indexOf(event.target);
    if (at >= 0) hear(words[at]);
  });
  script.addEventListener('keydown', (event) => walk(event, buttons));

  // --- sound

  async function addSound() {
    const { file, transcript } = result;
    if (!url) {
      url = URL.createObjectURL(file);
      audio.src = url;
    }
    seek.max = transcript.duration;
    part('.end').textContent = clock(transcript.duration);
    timeline.fill(transcript, words, unitOf(), peaks, PEAKS_S);
    follow();
    if (peaks) return;
    const samples = await samplesOf(file);
    peaks = samples && peaksOf(samples);
    timeline.fill(transcript, words, unitOf(), peaks, PEAKS_S);
    drawSeek();
  }

  function hear(segment) {
    if (part('.player').hidden) return;
    stop = segment.end_s;
    audio.currentTime = segment.start_s;
    audio.play();
  }

  function jump(seconds, plays = !audio.paused) {
    stop = undefined;
    audio.currentTime = Math.max(0, Math.min(seconds, result.transcript.duration));
    if (plays) audio.play();
    follow();
  }

  function follow() {
    if (stop !== undefined && audio.currentTime >= stop) {
      audio.pause();
      stop = undefined;
    }
    const [now, isPlaying] = [audio.currentTime, !audio.paused];
    part('.play').classList.toggle('playing', isPlaying);
    part('.play').setAttribute('aria-label', isPlaying ? 'Pause' : 'Play');
    part('.now').textContent = clock(now);
    seek.value = now;
    seek.style.setProperty('--at', `${(100 * now) / result.transcript.duration}%`);
    seek.setAttribute('aria-valuetext', `${clock(now)} of ${clock(result.transcript.duration)}`);
    const at = lastBegun(words, now);
    const next = isPlaying && at >= 0 && now < words[at].end_s ? buttons[at] : null;
    if (next !== lit) {
      lit?.classList.remove('playing');
      next?.classList.add('playing');
      lit = next;
    }
    timeline.follow(now, isPlaying);
    drawSeek();
    if (isPlaying) requestAnimationFrame(follow);
  }

  for (const name of ['play', 'pause', 'seeked']) audio.addEventListener(name, follow);
  audio.addEventListener('error', () => { part('.player').hidden = true; });
  part('.play').addEventListener('click', () => {
    stop = undefined;
    if (audio.paused) audio.play();
    else audio.pause();
  });
  seek.addEventListener('input', () => jump(Number(seek.value)));
  new ResizeObserver(drawSeek).observe(part('.seek'));

  function drawSeek() {
    const isLong = Boolean(peaks) && timeline.isLong();
    part('.seek').classList.toggle('long', isLong);
    if (!isLong) return;
    const canvas = part('.seek canvas');
    const n = Math.floor(canvas.clientWidth / 3);
    if (coarse.length !== n) coarse = highest(peaks, n, 0, peaks.length);
    const played = (n * audio.currentTime) / result.transcript.duration;
    bars(canvas, coarse, (i) => (i < played ? '--accent' : '--wave'));
  }

  // --- what the net says

  async function emissions(start, end) {
    const { duration } = result.transcript;
    const form = new FormData();
    form.append('model', result.model);
    let [file, from] = [result.file, 0];
    const samples = duration > WHOLE_S ? await samplesOf(file) : null;
    if (samples) {
      from = Math.max(0, start - CONTEXT_S);
      const around = samples.subarray(RATE * from, RATE * (end + CONTEXT_S));
      file = new File([wav([around], around.length, RATE)], file.name);
    }
    form.append('start', start - from);
    form.append('end', end - from);
    form.append('file', file, file.name);
    const answer = await ask('v1/audio/emissions', { method: 'POST', body: form });
    const found = await answer.json();
    const bytes = Uint8Array.from(atob(found.log_probs), (c) => c.charCodeAt(0));
    return {
      labels: found.labels,
      first: found.first_s + from,
      shift: found.shift_s,
      probabilities: new Float32Array(bytes.buffer).map(Math.exp),
    };
  }

  // --- the microphone

  function heard(level) {
    levels.push(Math.min(1, level));
    const canvas = part('.microphone canvas');
    const n = Math.floor(canvas.clientWidth / 3);
    const last = levels.slice(Math.max(0, levels.length - n));
    bars(canvas, [...new Array(n - last.length).fill(0), ...last], () => '--accent');
  }

  function speak(committed, tentative) {
    if (part('.committed').textContent !== committed) part('.committed').textContent = committed;
    part('.tentative').textContent = tentative;
  }

  // --- what becomes of it

  async function download(name) {
    const { transcript, file } = result;
    try {
      if (name === 'copy') {
        await navigator.clipboard.writeText(transcript.text);
        say('copied');
        return;
      }
      const answer = await ask(`format/${name}`, { method: 'POST', body: JSON.stringify(transcript) });
      const link = document.createElement('a');
      link.href = URL.createObjectURL(await answer.blob());
      link.download = `${file.name.replace(/\.[^.]*$/, '')}.${name === 'textgrid' ? 'TextGrid' : name}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    } catch (error) {
      say(error.message);
    }
  }

  for (const button of article.querySelectorAll('[data-format]')) {
    button.addEventListener('click', () => download(button.dataset.format));
  }
  part('.again').addEventListener('click', again);

  return {
    article,
    update,
    heard,
    spoken: speak,
    leave() { audio.pause(); },
    end() {
      audio.pause();
      if (url) URL.revokeObjectURL(url);
    },
  };
}
