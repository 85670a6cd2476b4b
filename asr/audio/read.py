"""Audio files in any format libsndfile reads <-> waveforms: float32 mono (N,) in [-1, 1].

What libsndfile does not know is left to ffmpeg, where PyAV is installed (the extra ``media``).

A file inside an uncompressed tar has the path ``FILE.tar:OFFSET:SIZE``: where its bytes lie.
Standard input has the path ``-``.
"""

from __future__ import annotations

import io
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

import numpy as np
import soundfile

from asr.audio.resample import Resampling
from asr.errors import InputError
from asr.system.files import given, write_aside

if TYPE_CHECKING:
    from asr.audio.media import Medium

#: Standard input; a file that is called so has an absolute path.
STDIN = Path("-")
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
MOST_CHANNELS = 16
#: A segment may end this much after its audio and is cut there, as in Kaldi's extract-segments.
MAX_OVERSHOOT_S = 0.5
#: Float audio may clip a little above 1; a peak beyond this was never scaled to [-1, 1].
MAX_PEAK = 8.0
PIECE = 1 << 22
#: Seconds; three hundred years.
MOST_S = 1e10
_MEMBER = re.compile(r"(.+\.tar):([0-9]{1,18}):([0-9]{1,18})", re.DOTALL)
SPHERE_HEADER_BYTES = 1024
SPHERE_MAGIC = b"NIST_1A"
PAGE_MAGIC = b"OggS"
#: Bytes of an Ogg page: its head and 255 segments of 255.
MOST_PAGE = 27 + 255 + 255 * 255
# Writers that stream to a pipe leave these sizes in the WAV header (sox the last): length unknown.
_UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, (1 << 64) - 1)
#: Bytes by which `is_plain` tells.
HEAD = 46
#: Codecs of WAV that are none: PCM, floats, A-law, mu-law; what says "see below" for one of these.
_PLAIN_CODECS, _EXTENSIBLE = (1, 3, 6, 7), 0xFFFE
#: libsndfile's numbers for what it does not know: the format, the codec.
_UNKNOWN = (1, 4)
#: Samples to be read of a medium whose length nobody has told.
_ALL = 1 << 60
#: More than a file has; a damaged one may hold millions of empty chunks.
MOST_CHUNKS = 10_000
Order = Literal["little", "big"]


class _Chunks(NamedTuple):
    """How chunks follow each other from the byte ``first`` on: name, size, content.

    n_name, n_size: bytes of these. counts_head: the size counts them, too.
    """

    first: int
    n_name: int
    n_size: int
    order: Order
    counts_head: bool
    alignment: int


#: WAV, RF64, AIFF, Sony's Wave64 and Apple's CAF, by their first bytes.
_CHUNKED = {
    b"RIFF": _Chunks(12, 4, 4, "little", False, 2),
    b"RF64": _Chunks(12, 4, 4, "little", False, 2),
    b"FORM": _Chunks(12, 4, 4, "big", False, 2),
    b"riff": _Chunks(40, 16, 8, "little", True, 8),
    b"caff": _Chunks(8, 4, 8, "big", False, 1),
}


def load_audio(
    path: Path,
    sample_rate: int = 16000,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    data: bytes | None = None,
) -> np.ndarray:
    """Read ``duration_s`` seconds (all there is where None) from ``offset_s`` on.

    ``data`` is the file's content, where it was read already.

    Channels are averaged; another rate is resampled by `asr.audio.resample`.
    Reading in pieces of ``duration_s`` streams a long file.

    Returns:
        (N,) float32 in [-1, 1] at ``sample_rate`` Hz, N >= 1.

    Raises:
        InputError: no such file, not audio, truncated or empty audio, NaN or infinite samples,
            a rate or channel count out of range, or a stretch that lies outside the file.
    """
    content = None if data is None else io.BytesIO(data)
    return _joined(
        audio_blocks(Path(path), sample_rate, None, math.inf, offset_s, duration_s, content)
    )


def audio_duration_s(path: Path) -> float:
    """Return the length in seconds as the header gives it, and see that the file reaches that far.

    Raises:
        InputError: as `load_audio`, but for what only the samples show.
    """
    path = Path(path)
    with _opened(path) as sound:
        if isinstance(sound, soundfile.SoundFile) and sound.format == "FLAC":
            # A FLAC header gives no size in bytes, but its last frame is found quickly.
            sound.seek(sound.frames - 1)
            if len(sound.read(1)) < 1:
                raise _truncated(path, f"{sound.frames} samples promised")
        return float(sound.frames / sound.samplerate)


def audio_blocks(
    path: Path,
    sample_rate: int = 16000,
    channel: int | None = None,
    block_s: float = 10.0,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    content: BinaryIO | None = None,
) -> Iterator[np.ndarray]:
    """Read audio of any length in blocks that take little memory; joined, they are `load_audio`'s.

    channel: this one, from 0 on, instead of the mean of all. content: what to read in the place of
    the file, seekable.

    Yields:
        (N,) float32 in [-1, 1] at ``sample_rate`` Hz, about ``block_s`` seconds at a time.

    Raises:
        InputError: as `load_audio`, some of it only where the fault lies in the audio.
    """
    with _opened(path, content) as sound:
        rate, n_read = sound.samplerate, 0
        wanted = _seek(path, sound, offset_s, duration_s)

        def waveforms() -> Iterator[np.ndarray]:
            nonlocal n_read
            while n_read < wanted:
                samples = _read(sound, round(min(block_s * rate, wanted - n_read)))
                if not len(samples) and wanted == _ALL:
                    return
                if not len(samples):
                    raise _truncated(path, f"{wanted} samples promised, {n_read} there")
                n_read += len(samples)
                mixed = _mixed(samples) if channel is None else samples[:, channel]
                _check_peak(mixed, f"{path}: ")
                yield mixed

        blocks = waveforms()
        if rate != sample_rate:
            blocks = resampled_blocks(blocks, rate, sample_rate, path)
        for block in blocks:
            yield np.clip(block, -1.0, 1.0)


def audio_channels(path: Path) -> int:
    """Return the number of channels as the header gives it.

    Raises:
        InputError: as `load_audio`, but for what only the samples show.
    """
    with _opened(Path(path)) as sound:
        return int(sound.channels)


def audio_rate(path: Path) -> int:
    """Return the sample rate in Hz as the header gives it.

    Raises:
        InputError: as `load_audio`, but for what only the samples show.
    """
    with _opened(Path(path)) as sound:
        return int(sound.samplerate)


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


def member_path(tar: str, offset: int, size: int) -> str:
    """The path of a file inside a tar, as `tar_member` reads it."""
    return f"{tar}:{offset}:{size}"


def tar_member(path: Path | str) -> tuple[Path, int, int] | None:
    """The tar, offset and size of a path ``FILE.tar:OFFSET:SIZE``; None for any other path."""
    found = _MEMBER.fullmatch(str(path))
    return (Path(found[1]), int(found[2]), int(found[3])) if found else None


def file_state(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of change in ns, by which a file is known again; None: no file."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return None
    return (about.st_size, about.st_mtime_ns) if stat.S_ISREG(about.st_mode) else None


def _member(path: Path) -> BinaryIO | None:
    """The content of a file inside a tar; None where ``path`` is a file of its own."""
    member = tar_member(path)
    if member is None or path.is_file():
        return None
    tar, offset, size = member
    if not tar.is_file():
        raise InputError(f"{tar}: no such file; expected a tar with audio")
    missing = offset + size - tar.stat().st_size
    if missing > 0:
        raise _truncated(path, f"the tar ends {missing} bytes early")
    with tar.open("rb") as handle:
        handle.seek(offset)
        return io.BytesIO(handle.read(size))


@lru_cache(maxsize=1)
def _copied(stream: BinaryIO) -> BinaryIO:
    """All of a stream, on disk without a name: unlike a pipe it can be read from any place on."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115
    shutil.copyfileobj(stream, copy, PIECE)
    return copy


class _Within:
    """Audio by its bytes; where a damaged header leads outside of them, it stays where it is."""

    def __init__(self, handle: BinaryIO) -> None:
        self.handle, self.tell, self.readinto = handle, handle.tell, handle.readinto  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self.handle.seek(offset, whence)
        except (ValueError, OverflowError, OSError):
            # Raised in libsndfile's callback it would print a traceback, and all goes on.
            return self.handle.tell()


def standard_input() -> BinaryIO:
    """What standard input gives, copied to a file without a name the first time.

    Raises:
        InputError: it is closed.
        OSError: it cannot be read, or there is no room for it.
    """
    return _copied(given())


def is_plain(head: bytes) -> bool:
    """Whether a file that begins so (`HEAD` bytes) is WAV without a codec, or FLAC."""
    if head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt ":
        return head.startswith(b"fLaC")
    codec = int.from_bytes(head[20:22], "little")
    if codec == _EXTENSIBLE:
        codec = int.from_bytes(head[44:46], "little")
    return codec in _PLAIN_CODECS


@contextmanager
def _opened(path: Path, content: BinaryIO | None = None) -> Iterator[soundfile.SoundFile | Medium]:
    """Open audio: a regular file, whole by its header, of usable rate, channels and length.

    content: what is read in the place of the file.
    """
    try:
        content = content or (standard_input() if path == STDIN else _member(path))
        if content is None and not path.is_file():
            found = "a folder" if path.is_dir() else "not a regular file"
            raise InputError(
                f"{path}: {found if path.exists() else 'no such file'}; expected audio"
            )
        n_bytes = path.stat().st_size if content is None else content.seek(0, os.SEEK_END)
        if not n_bytes:
            raise InputError(f"{path}: the file is empty; expected audio")
        with ExitStack() as stack:
            handle = content or stack.enter_context(path.open("rb"))
            handle.seek(0)
            _check_whole(path, handle, n_bytes)
            named = os.fsencode(path) if content is None else _Within(handle)
            try:
                handle.seek(0)
                sound = soundfile.SoundFile(named)
            except soundfile.LibsndfileError as error:
                sound = _medium(path, handle, error)
            stack.enter_context(sound)
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
            if isinstance(sound, soundfile.SoundFile) and not sound.frames:
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


def _medium(path: Path, handle: BinaryIO, error: soundfile.LibsndfileError) -> Medium:
    """Open with ffmpeg what libsndfile does not know; plain files are not left to it.

    Raises:
        InputError: it is no audio, or damaged.
        soundfile.LibsndfileError: it is for libsndfile to read.
    """
    handle.seek(0)
    if error.code not in _UNKNOWN or is_plain(handle.read(HEAD)):
        raise error
    try:
        from asr.audio.media import Medium, UnknownError
    except ModuleNotFoundError:
        raise InputError(
            f"{path}: not audio that can be read without PyAV; convert it to WAV or FLAC, or "
            "install carousel-asr with the extra media (m4a, mp4, webm ...)"
        ) from error
    try:
        return Medium(path, handle)
    except UnknownError:
        raise error from None


def _check_whole(path: Path, handle: BinaryIO, n_bytes: int) -> None:
    """Refuse files whose header promises more than they hold: libsndfile reads them silently."""
    head = handle.read(4096)
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
    elif head[:4] in (b".snd", b"dns."):
        order: Order = "big" if head[:4] == b".snd" else "little"
        start, size = (int.from_bytes(head[at : at + 4], order) for at in (4, 8))
        if size not in _UNKNOWN_SIZES and start + size > n_bytes:
            raise _truncated(path, f"{size} bytes of samples promised, {n_bytes - start} there")
    elif head.startswith(PAGE_MAGIC):
        _check_last_page(path, handle, n_bytes)
    elif head[:4] in _CHUNKED:
        _check_chunks(path, handle, n_bytes, _CHUNKED[head[:4]])


def _check_last_page(path: Path, handle: BinaryIO, n_bytes: int) -> None:
    """See that an Ogg file ends with a whole page, marked as the last (RFC 3533, section 6)."""
    handle.seek(max(0, n_bytes - 2 * MOST_PAGE))
    tail = handle.read()
    page = tail[max(0, tail.rfind(PAGE_MAGIC)) :].ljust(27, b"\0")
    is_last, n_segments = page[5] & 4, page[26]
    if not is_last or len(page) < 27 + n_segments + sum(page[27 : 27 + n_segments]):
        raise _truncated(path, "the last page of its Ogg stream is missing")


def _sphere_fields(head: bytes) -> dict[str, str]:
    """SPHERE header lines ``name -type value`` up to ``end_head``."""
    fields = {}
    for line in head.decode("latin-1").splitlines()[2:]:
        if line.startswith("end_head"):
            break
        name, _, value = line.partition(" ")
        fields[name] = value.partition(" ")[2].strip()
    return fields


def _check_chunks(path: Path, handle: BinaryIO, n_bytes: int, layout: _Chunks) -> None:
    """Find the chunk of samples and see that it fits in."""
    at = layout.first
    n_head = layout.n_name + layout.n_size
    large_size = None
    for _ in range(MOST_CHUNKS):
        if at + n_head > n_bytes:
            return
        handle.seek(at)
        name = handle.read(layout.n_name)[:4]
        size = int.from_bytes(handle.read(layout.n_size), layout.order)
        if layout.counts_head:
            size = max(0, size - n_head)
        if name == b"ds64":
            # RF64's size of the samples, behind that of the file.
            large_size = int.from_bytes(handle.read(16)[8:], "little")
        if name in (b"data", b"SSND"):
            if size == 0xFFFFFFFF and large_size is not None:
                size = large_size
            if size not in _UNKNOWN_SIZES and at + n_head + size > n_bytes:
                there = n_bytes - at - n_head
                raise _truncated(path, f"{size} bytes of samples promised, {there} there")
            return
        at += n_head + size
        at += -at % layout.alignment


def _seek(
    path: Path, sound: soundfile.SoundFile | Medium, offset_s: float, duration_s: float | None
) -> int:
    """Go to ``offset_s``; returns the number of samples from there on, in ``duration_s`` or all."""
    if not (isinstance(sound, soundfile.SoundFile) or offset_s or duration_s is not None):
        return _ALL
    rate = sound.samplerate
    # Beyond any audio, but no infinity.
    start_s, end_s = min(offset_s, MOST_S), min(offset_s + (duration_s or 0.0), MOST_S)
    start = round(start_s * rate)
    stop = sound.frames if duration_s is None else round(end_s * rate)
    if not 0 <= start < min(stop, sound.frames) or stop > sound.frames + MAX_OVERSHOOT_S * rate:
        raise InputError(
            f"{path}: the stretch from {offset_s:g} s to {stop / rate:g} s is not in this "
            f"audio of {sound.frames / rate:g} s; correct its offset and duration"
        )
    if start:
        sound.seek(start)
    return min(stop, sound.frames) - start


def _read(sound: soundfile.SoundFile | Medium, wanted: int) -> np.ndarray:
    """Read at most ``wanted`` samples (N, channels), in pieces: a damaged header may promise more
    than fits into memory.
    """
    pieces = [np.zeros((0, sound.channels), np.float32)]
    while wanted > 0:
        piece = sound.read(min(wanted, PIECE), dtype="float32", always_2d=True)
        pieces.append(piece)
        wanted = wanted - len(piece) if len(piece) else 0
    return np.concatenate(pieces)


def _mixed(samples: np.ndarray) -> np.ndarray:
    """Samples (N, channels) -> their mean (N,)."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    # What is no number is found, and told, by its peak.
    with np.errstate(over="ignore", invalid="ignore"):
        mean: np.ndarray = samples.mean(axis=1)
    return mean


def checked_waveform(waveform: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """A caller's waveform (N,) of floating-point samples as `load_audio` gives it: float32.

    It is at ``rate`` Hz, what is returned at ``sample_rate``.

    Raises:
        InputError: another shape or type, no samples, NaN or infinite ones, ones far outside
            [-1, 1], or a rate out of range.
    """
    if waveform.ndim != 1 or not np.issubdtype(waveform.dtype, np.floating):
        raise InputError(
            "waveform: expected samples (N,) of float32 in [-1, 1], found "
            f"{waveform.shape} of {waveform.dtype}; average channels, divide int16 by 32768"
        )
    if not len(waveform):
        raise InputError("waveform: holds no samples")
    waveform = np.ascontiguousarray(waveform, np.float32)
    _check_peak(waveform, "waveform: ")
    if rate != sample_rate:
        check_rate(rate)
        blocks = resampled_blocks(iter([waveform]), int(rate), sample_rate, Path("waveform"))
        waveform = _joined(blocks)
    return np.clip(waveform, -1.0, 1.0)


def check_rate(rate: int) -> None:
    """Refuse a sample rate out of range.

    Raises:
        InputError: it is.
    """
    if not isinstance(rate, int | np.integer) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise InputError(f"rate {rate!r}: expected Hz in {LOWEST_RATE}..{HIGHEST_RATE}")


def _check_peak(waveform: np.ndarray, where: str) -> None:
    # NaN spreads into the peak, so that one pass finds it too.
    peak = float(np.abs(waveform).max())
    if not math.isfinite(peak):
        raise InputError(f"{where}holds NaN or infinite samples; export it again as 16-bit PCM")
    if peak > MAX_PEAK:
        raise InputError(f"{where}samples reach {peak:g}, expected -1 to 1; export it again scaled")


def _truncated(path: Path, evidence: str) -> InputError:
    return InputError(f"{path}: truncated audio ({evidence}); get a whole copy or leave it out")


def _joined(blocks: Iterator[np.ndarray]) -> np.ndarray:
    first, *rest = blocks
    return np.concatenate([first, *rest]) if rest else first


def resampled_blocks(
    blocks: Iterator[np.ndarray], rate: int, sample_rate: int, path: Path
) -> Iterator[np.ndarray]:
    """Resample a waveform that comes in blocks as if it came in one."""
    resampling = Resampling(rate, sample_rate, str(path))
    for block in blocks:
        found = resampling.of(block)
        if len(found):
            yield found
    yield resampling.rest()
