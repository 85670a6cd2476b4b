// Words while one speaks: samples of the microphone to the server over a WebSocket, which tells what
// is committed and what is likely to follow.

const ITEM = 'conversation.item.input_audio_transcription';

function base64(samples) {
  const bytes = new Uint8Array(2 * samples.length);
  const view = new DataView(bytes.buffer);
  samples.forEach((sample, i) => {
    view.setInt16(2 * i, 32767 * Math.max(-1, Math.min(1, sample)), true);
  });
  return btoa(String.fromCharCode(...bytes));
}

// shown(committed, tentative): all that was said by now. failed(message): no more will come.
export function listen({ model, keywords, rate, key, shown, failed }) {
  const address = new URL('v1/realtime', location.href);
  address.protocol = address.protocol.replace('http', 'ws');
  address.search = new URLSearchParams({ intent: 'transcription', model });
  // A page can give a WebSocket no header; this is how OpenAI's pages name a key.
  const protocols = key ? ['realtime', `openai-insecure-api-key.${key}`] : ['realtime'];
  const socket = new WebSocket(address, protocols);
  const send = (event) => socket.send(JSON.stringify(event));
  const packet = new Float32Array(Math.round(rate / 10));
  let n = 0;
  let waiting = [];
  let isOpen = false;
  let isOver = false;
  let item = null;
  let committed = '';

  function end(message) {
    if (isOver) return;
    isOver = true;
    socket.close();
    if (message) failed(message);
  }

  function flush() {
    if (!isOpen) return;
    for (const audio of waiting) send({ type: 'input_audio_buffer.append', audio });
    waiting = [];
  }

  socket.addEventListener('message', ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === 'session.created') {
      isOpen = true;
      send({
        type: 'session.update',
        session: {
          type: 'transcription',
          audio: { input: { format: { type: 'audio/pcm', rate }, transcription: { model, keywords } } },
          include: ['carousel.tentative'],
        },
      });
      flush();
    } else if (event.type === `${ITEM}.delta`) {
      if (committed && event.item_id !== item) committed += ' ';
      item = event.item_id;
      committed += event.delta;
      shown(committed, '');
    } else if (event.type === 'carousel.input_audio_transcription.tentative') {
      shown(committed, event.text);
    } else if (event.type === 'error' || event.type === `${ITEM}.failed`) {
      end(event.error.message);
    }
  });
  socket.addEventListener('close', () => end('the server has closed the connection'));

  return {
    hear(samples) {
      if (isOver) return;
      for (const sample of samples) {
        packet[n] = sample;
        n += 1;
        if (n === packet.length) {
          waiting.push(base64(packet));
          n = 0;
        }
      }
      flush();
    },
    end,
  };
}
