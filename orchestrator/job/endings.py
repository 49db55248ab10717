"""Which files are audio: by their ending, or by their first bytes where the ending says nothing."""

import os

# what libsndfile and the pinned ffmpeg read without being told more
_AUDIO = """
    .wav .wave .bwf .w64 .rf64 .aif .aiff .aifc .afc .au .snd .caf .sph .nist .voc .svx .8svx .iff .paf .pvf .sf .ircam
    .avr .sds .xi .htk .wve .flac .ogg .oga .ogv .ogx .ogm .spx .opus .mp1 .mp2 .mp3 .mpa .mpga .mp4 .m4a .m4b .m4p .m4r
    .m4v .f4a .f4v .mov .qt .3gp .3gpp .3g2 .aac .adts .ac3 .eac3 .ec3 .dts .dtshd .thd .mlp .amr .awb .wma .wmv .asf
    .webm .weba .mkv .mka .avi .ts .m2t .m2ts .mts .mpg .mpeg .vob .flv .tta .tak .ape .wv .mpc .shn .dsf .dff .gsm .qcp
    .ra .rm .rmvb .oma .aa3 .adx .vqf
"""
# images, playlists, text, arrays, archives, and what is half fetched: never audio, and never opened
_OTHER = """
    .jpg .jpeg .png .gif .bmp .tif .tiff .webp .svg .ico .heic .psd .m3u .m3u8 .pls .cue .xspf .wpl .txt .lst .scp .csv
    .tsv .json .jsonl .yaml .yml .xml .html .htm .md .rst .log .ini .cfg .toml .lab .textgrid .eaf .srt .vtt .lrc .nfo
    .pdf .doc .docx .xls .xlsx .odt .ods .rtf .tex .py .pyc .ipynb .sh .js .c .h .cpp .r .m .npy .npz .pt .pth .h5 .hdf5
    .pkl .mat .parquet .arrow .db .sqlite .zip .gz .bz2 .xz .zst .tar .tgz .7z .rar .mid .midi .sfk .asd .pek .reapeaks
    .md5 .sha1 .sha256 .sfv .exe .dll .so .part .partial .crdownload .download .tmp .aria2
"""
AUDIO, OTHER = frozenset(_AUDIO.split()), frozenset(_OTHER.split())
_DOUBTFUL = frozenset([".ts", ".mts"])  # streams of television, or a program's text
HEAD = 64  # bytes that are looked at

# of each kind: what stands where
_MAGIC: tuple[tuple[tuple[int, bytes], ...], ...] = (
    *(((0, riff), (8, kind)) for riff in (b"RIFF", b"RIFX", b"RF64", b"BW64") for kind in (b"WAVE", b"AVI ")),
    *(((0, b"FORM"), (8, kind)) for kind in (b"AIFF", b"AIFC", b"8SVX", b"16SV")),
    *(((0, word),) for word in (b".snd", b"dns.", b"caff", b"fLaC", b"OggS", b"ID3", b"NIST_1A", b"Creative Voice")),
    *(((0, word),) for word in (b"wvpk", b"MAC ", b"TTA1", b"tBaK", b"MPCK", b"MP+", b"ajkg", b"DSD ", b"FRM8")),
    *(((0, word),) for word in (b"\x0b\x77", b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"ADIF", b".RMF", b"FLV\x01")),
    *(((0, word),) for word in (b"#!AMR", b"\x00\x00\x01\xba")),  # the latter an MPEG program stream
    ((0, b"riff\x2e\x91\xcf\x11"),),  # Wave64
    ((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),),  # ASF
    ((0, b"\x1a\x45\xdf\xa3"),),  # Matroska
)
_PICTURES = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"crx ")  # brands of ISO media files


def is_audio(name: str) -> bool | None:
    """Return whether a file of this name is audio; None where only its first `HEAD` bytes can tell."""
    ending = os.path.splitext(name)[1].lower()
    if ending in _DOUBTFUL or (ending not in AUDIO and ending not in OTHER):
        return None
    return ending in AUDIO


def begins_as_audio(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is of a kind that holds audio."""
    if any(all(head.startswith(word, place) for place, word in kind) for kind in _MAGIC):
        return True
    if head[4:8] == b"ftyp":
        return head[8:12] not in _PICTURES
    return _is_mpeg(head) or _is_transport(head)


def _is_mpeg(head: bytes) -> bool:
    """Return whether a frame of MPEG audio or of AAC (ADTS) begins here, in all of its header's fields.

    Layer I is not asked for: what UTF-16 begins with looks like it.
    """
    if len(head) < 4 or head[0] != 0xFF:
        return False
    if head[1] & 0xF6 == 0xF0:  # ADTS
        return (head[2] >> 2 & 15) < 13
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    return (
        head[1] & 0xE0 == 0xE0 and version != 1 and layer in (1, 2) and 0 < head[2] >> 4 < 15 and head[2] >> 2 & 3 != 3
    )


def _is_transport(head: bytes) -> bool:
    """Return whether a packet of an MPEG transport stream begins here; where it is text, it is a program's."""
    return 0x47 in (head[:1] + head[4:5]) and any(byte < 9 or byte > 126 for byte in head)
