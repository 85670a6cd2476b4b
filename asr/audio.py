"""Audio files in any format libsndfile reads <-> waveforms: float32 mono (N,) in [-1, 1]."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from asr.errors import InputError
from asr.files import write_aside

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
MOST_CHANNELS = 16
#: A segment may end this much after its audio and is cut there, as in Kaldi's extract-segments.
MAX_OVERSHOOT_S = 0.5
#: Float audio may clip a little above 1; a peak beyond this was never scaled to [-1, 1].
MAX_PEAK = 8.0
#: Taps of the largest resampling kernel (rate x rate / gcd^2); 44056 -> 16000 Hz has 1.1e7.
MAX_KERNEL = 5e7
PIECE = 1 << 22
SPHERE_HEADER_BYTES = 1024
SPHERE_MAGIC = b"NIST_1A"
# Writers that stream to a pipe leave these sizes in the WAV header (sox the last): length unknown.
_UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)


def load_audio(
    path: Path,
    sample_rate: int = 16000,
    offset_s: float = 0.0,
    duration_s: float | None = None,
) -> np.ndarray:
    """Read ``duration_s`` seconds (all there is where None) from ``offset_s`` on.

    Channels are averaged; another rate is resampled with torchaudio's windowed sinc.
    Reading in pieces of ``duration_s`` streams a long file.

    Returns:
        (N,) float32 in [-1, 1] at ``sample_rate`` Hz, N >= 1.

    Raises:
        InputError: no such file, not audio, truncated or empty audio, NaN or infinite samples,
            a rate or channel count out of range, or a stretch that lies outside the file.
    """
    path = Path(path)
    with _opened(path) as sound:
        rate = sound.samplerate
        start = round(offset_s * rate)
        stop = sound.frames if duration_s is None else round((offset_s + duration_s) * rate)
        if not 0 <= start < min(stop, sound.frames) or stop > sound.frames + MAX_OVERSHOOT_S * rate:
            raise InputError(
                f"{path}: the stretch from {offset_s:g} s to {stop / rate:g} s is not in this "
                f"audio of {sound.frames / rate:g} s; correct its offset and duration"
            )
        wanted = min(stop, sound.frames) - start
        if start:
            sound.seek(start)
        samples = _read(sound, wanted)
    if len(samples) < wanted:
        raise _truncated(path, f"{wanted} samples promised, {len(samples)} there")
    waveform: np.ndarray = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    # NaN spreads into the peak, so that one pass finds it too.
    peak = float(np.abs(waveform).max())
    if not math.isfinite(peak):
        raise InputError(f"{path}: holds NaN or infinite samples; export it again as 16-bit PCM")
    if peak > MAX_PEAK:
        raise InputError(
            f"{path}: samples reach {peak:g}, expected -1 to 1; export it again scaled"
        )
    if rate != sample_rate:
        waveform = _resampled(waveform, rate, sample_rate, path)
    return np.clip(waveform, -1.0, 1.0)


def audio_duration_s(path: Path) -> float:
    """Return the length in seconds as the header gives it, and see that the file reaches that far.

    Raises:
        InputError: as `load_audio`, but for what only the samples show.
    """
    path = Path(path)
    with _opened(path) as sound:
        if sound.format == "FLAC":
            # A FLAC header gives no size in bytes, but its last frame is found quickly.
            sound.seek(sound.frames - 1)
            if len(sound.read(1)) < 1:
                raise _truncated(path, f"{sound.frames} samples promised")
        return float(sound.frames / sound.samplerate)


def sphere_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """Samples (N,) int16 as TIMIT stores them: NIST SPHERE, 1024-byte header, little-endian PCM."""
    if samples.ndim != 1 or samples.dtype != np.int16 or not len(samples):
        raise ValueError(f"expected int16 samples (N,), found {samples.dtype} {samples.shape}")
    header = "\n".join(
        [
            SPHERE_MAGIC.decode(),
            f"{SPHERE_HEADER_BYTES:7d}",
            "channel_count -i 1",
            f"sample_count -i {len(samples)}",
            f"sample_rate -i {sample_rate}",
            f"sample_min -i {samples.min()}",
            f"sample_max -i {samples.max()}",
            "sample_n_bytes -i 2",
            "sample_byte_format -s2 01",
            "sample_sig_bits -i 16",
            "end_head\n",
        ]
    )
    return header.encode("ascii").ljust(SPHERE_HEADER_BYTES) + samples.astype("<i2").tobytes()


def write_sphere(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write samples (N,) int16 as `sphere_bytes`.

    Raises:
        InputError: the file cannot be written; nothing is left behind.
    """
    with write_aside(path) as aside:
        aside.write_bytes(sphere_bytes(samples, sample_rate))


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open audio: a regular file, whole by its header, of usable rate, channels and length."""
    try:
        if not path.is_file():
            found = "a folder" if path.is_dir() else "not a regular file"
            raise InputError(
                f"{path}: {found if path.exists() else 'no such file'}; expected audio"
            )
        n_bytes = path.stat().st_size
        if not n_bytes:
            raise InputError(f"{path}: the file is empty; expected audio")
        with path.open("rb") as handle:
            _check_whole(path, handle.read(4096), n_bytes)
        with soundfile.SoundFile(os.fsencode(path)) as sound:
            if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
                raise InputError(
                    f"{path}: sample rate {sound.samplerate} Hz is outside "
                    f"{LOWEST_RATE}..{HIGHEST_RATE}; resample it first"
                )
            if sound.channels > MOST_CHANNELS:
                raise InputError(
                    f"{path}: {sound.channels} channels, at most {MOST_CHANNELS} are supported; "
                    "mix it down first"
                )
            if not sound.frames:
                raise InputError(
                    f"{path}: holds no samples (zero-length or cut short); leave it out"
                )
            yield sound
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        if "lost sync" in reason or "psf_fseek" in reason:
            raise _truncated(path, reason) from error
        raise InputError(
            f"{path}: not audio that can be read ({reason}); convert it to WAV or FLAC"
        ) from error
    except TypeError as error:
        # soundfile asks for rate and channels where the name ends in .raw
        raise InputError(f"{path}: raw samples without a header; convert it to WAV") from error


def _check_whole(path: Path, head: bytes, n_bytes: int) -> None:
    """Refuse files whose header promises more than they hold: libsndfile reads them silently."""
    if head.startswith(SPHERE_MAGIC):
        fields = _sphere_fields(head)
        if "shorten" in fields.get("sample_coding", ""):
            raise InputError(
                f"{path}: SPHERE compressed with Shorten, which cannot be read; "
                "unpack it with NIST's w_decode or with 'sph2pipe -p -f sph'"
            )
        try:
            header_bytes = int(head.split(maxsplit=2)[1])
            n_samples = int(fields["sample_count"]) * int(fields.get("channel_count", 1))
            promised = header_bytes + n_samples * int(fields["sample_n_bytes"])
        except (KeyError, ValueError, IndexError) as error:
            raise InputError(
                f"{path}: SPHERE header lacks sample_count or sample_n_bytes; get a new copy"
            ) from error
        if n_bytes < promised:
            raise _truncated(path, f"{promised} bytes promised by its header, {n_bytes} there")
    elif head[:4] in (b"RIFF", b"FORM"):
        _check_chunks(path, n_bytes, "little" if head[:4] == b"RIFF" else "big")


def _sphere_fields(head: bytes) -> dict[str, str]:
    """SPHERE header lines ``name -type value`` up to ``end_head``."""
    fields = {}
    for line in head.decode("latin-1").splitlines()[2:]:
        if line.startswith("end_head"):
            break
        name, _, value = line.partition(" ")
        fields[name] = value.partition(" ")[2].strip()
    return fields


def _check_chunks(path: Path, n_bytes: int, order: str) -> None:
    """Find the sample chunk of a RIFF (WAV) or FORM (AIFF) file and see that it fits in."""
    with path.open("rb") as handle:
        at = 12
        while at + 8 <= n_bytes:
            handle.seek(at)
            name = handle.read(4)
            size = int.from_bytes(handle.read(4), order)  # type: ignore[arg-type]
            if name in (b"data", b"SSND"):
                if size not in _UNKNOWN_SIZES and at + 8 + size > n_bytes:
                    raise _truncated(
                        path, f"{size} bytes of samples promised, {n_bytes - at - 8} there"
                    )
                return
            at += 8 + size + size % 2


def _read(sound: soundfile.SoundFile, wanted: int) -> np.ndarray:
    """Read at most ``wanted`` samples (N, channels), in pieces: a damaged header may promise more
    than fits into memory.
    """
    pieces = [np.zeros((0, sound.channels), np.float32)]
    while wanted > 0:
        piece = sound.read(min(wanted, PIECE), dtype="float32", always_2d=True)
        pieces.append(piece)
        wanted = wanted - len(piece) if len(piece) else 0
    return np.concatenate(pieces)


def _truncated(path: Path, evidence: str) -> InputError:
    return InputError(f"{path}: truncated audio ({evidence}); get a whole copy or leave it out")


def _resampled(waveform: np.ndarray, rate: int, sample_rate: int, path: Path) -> np.ndarray:
    if rate * sample_rate / math.gcd(rate, sample_rate) ** 2 > MAX_KERNEL:
        raise InputError(
            f"{path}: {rate} Hz has no short ratio to {sample_rate} Hz; resample it first"
        )
    # torch takes seconds to import, and audio at the right rate does not need it.
    import torch
    from torchaudio.functional import resample

    resampled = resample(torch.from_numpy(np.ascontiguousarray(waveform)), rate, sample_rate)
    array: np.ndarray = resampled.numpy()
    return array
