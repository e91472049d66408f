"""Miniature raw trees of the datasets, in their exact layouts, with their oddities on request.

``build(name, raw, per_class, oddities)`` makes the tree of one dataset and returns what a reader
must find in it. All media are real files of a few kilobytes.
"""

import pickle
from dataclasses import dataclass, field
from pathlib import Path

from amst.datasets.ave import CATEGORIES
from amst.datasets.cremad import EMOTIONS as CREMAD_EMOTIONS
from amst.datasets.iemocap import EMOTIONS as IEMOCAP_EMOTIONS
from amst.datasets.iemocap import SESSIONS
from amst.datasets.mvsa import SENTIMENTS
from tests.datasets.rawmedia import (
    LFS_POINTER,
    erase_frame_rate,
    truncate,
    write_bytes,
    write_image,
    write_silence,
    write_video,
    write_wav,
)

NAMES = ("AVE", "CREMAD", "IEMOCAP", "IEMOCAP3", "MVSA", "URFUNNY")


@dataclass
class Tree:
    """A raw tree and what must be found in it.

    Attributes:
        raw: the raw root.
        samples: id -> class of every row that reading gives.
        rejected: id -> a piece of the reason, of every row that reading rejects.
        damaged: ids among ``samples`` whose media cannot be decoded -> what is wrong with them.
        unusual: ids among ``samples`` that are to be used all the same -> what is unusual.
    """

    raw: Path
    samples: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    unusual: dict[str, str] = field(default_factory=dict)


def build(name, raw, per_class=2, oddities=False) -> Tree:
    """The miniature tree of the dataset ``name`` below ``raw``.

    Args:
        name: one of ``NAMES``.
        raw: folder that becomes the raw root.
        per_class: samples per class (IEMOCAP: per class and session).
        oddities: whether each known oddity is there too.
    """
    makers = {
        "AVE": (_ave, _odd_ave),
        "CREMAD": (_cremad, _odd_cremad),
        "IEMOCAP": (_iemocap, _odd_iemocap),
        "IEMOCAP3": (_iemocap, _odd_iemocap),
        "MVSA": (_mvsa, _odd_mvsa),
        "URFUNNY": (_urfunny, _odd_urfunny),
    }
    if name not in makers:
        where = "tests/datasets/rawtrees.py, as docs/add-a-dataset.md says"
        raise LookupError(f"Add makers of {name} to {where}")
    tree = Tree(Path(raw))
    plain, odd = makers[name]
    state = plain(tree, per_class)
    if oddities:
        odd(tree, state)
    return tree


# CREMA-D


def _cremad(tree, per_class):
    for index in range(per_class * len(CREMAD_EMOTIONS)):
        code, name = list(CREMAD_EMOTIONS.items())[index % len(CREMAD_EMOTIONS)]
        clip = f"{1001 + index % 20}_DFA_{code}_XX"
        while clip in tree.samples:
            clip = clip.replace("DFA", "IEO") if "DFA" in clip else f"{index + 2000}_DFA_{code}_XX"
        _cremad_clip(tree, clip, name, index % len(CREMAD_EMOTIONS))


def _cremad_clip(tree, clip, name, class_index=0, seconds=2.0, **video):
    write_wav(tree.raw / f"AudioWAV/{clip}.wav", class_index, seconds)
    write_video(tree.raw / f"VideoFlash/{clip}.flv", class_index, seconds, **video)
    tree.samples[clip] = name


def _odd_cremad(tree, _):
    audio, video = tree.raw / "AudioWAV", tree.raw / "VideoFlash"
    _cremad_unread(tree, audio, video)
    for clip in ("1081_DFA_ANG_XX", "1082_DFA_DIS_XX", "1083_DFA_FEA_XX", "1084_DFA_HAP_XX"):
        _cremad_clip(tree, clip, CREMAD_EMOTIONS[clip[9:12]])
    truncate(video / "1081_DFA_ANG_XX.flv", 0.02)
    tree.damaged["1081_DFA_ANG_XX"] = "truncated video"
    write_video(video / "1082_DFA_DIS_XX.flv", frames=0)
    tree.damaged["1082_DFA_DIS_XX"] = "no frames"
    write_bytes(video / "1083_DFA_FEA_XX.flv", b"<html>not found</html>\n" * 100)
    tree.damaged["1083_DFA_FEA_XX"] = "no video"
    write_bytes(audio / "1084_DFA_HAP_XX.wav", b"<html>not found</html>\n" * 100)
    tree.damaged["1084_DFA_HAP_XX"] = "no sound file"
    _cremad_clip(tree, "1076_MTI_SAD_XX", "Sad")
    write_silence(audio / "1076_MTI_SAD_XX.wav", seconds=2.56925)
    tree.unusual["1076_MTI_SAD_XX"] = "silence"
    _cremad_clip(tree, "1078_MTI_SAD_XX", "Sad")
    write_wav(audio / "1078_MTI_SAD_XX.wav", seconds=0.0)
    tree.unusual["1078_MTI_SAD_XX"] = "sound of no length"
    _cremad_clip(tree, "1077_MTI_SAD_XX", "Sad")
    write_wav(audio / "1077_MTI_SAD_XX.wav", seconds=0.02)
    tree.unusual["1077_MTI_SAD_XX"] = "sound shorter than a window"
    _cremad_clip(tree, "1064_IEO_DIS_MD", "Disgust", seconds=61.0, fps=5)
    write_wav(audio / "1064_IEO_DIS_MD.wav", seconds=4.1)
    tree.unusual["1064_IEO_DIS_MD"] = "61 s of pictures with 4.1 s of sound"
    _cremad_clip(tree, "1089_DFA_DIS_XX", "Disgust", seconds=61.0, fps=1)
    tree.unusual["1089_DFA_DIS_XX"] = "61 s"
    _cremad_clip(tree, "1085_DFA_NEU_XX", "Neutral", frames=1)
    tree.unusual["1085_DFA_NEU_XX"] = "one frame"
    _cremad_clip(tree, "1086_DFA_NEU_XX", "Neutral")
    write_wav(audio / "1086_DFA_NEU_XX.wav", channels=2)
    tree.unusual["1086_DFA_NEU_XX"] = "stereo"
    for clip, value in (("1087_DFA_ANG_XX", 0.0), ("1088_DFA_ANG_XX", float("nan"))):
        _cremad_clip(tree, clip, "Anger", frames=1, sound=False)
        erase_frame_rate(video / f"{clip}.flv", value)
        tree.damaged[clip] = "no frame rate"


def _cremad_unread(tree, audio, video):
    for clip in ("1091_DFA_ANG_XX", "1092_DFA_DIS_XX", "1093_DFA_FEA_XX", "1094_DFA_HAP_XX"):
        _cremad_clip(tree, clip, "")
        del tree.samples[clip]
    write_bytes(video / "1091_DFA_ANG_XX.flv", LFS_POINTER)
    tree.rejected["1091_DFA_ANG_XX"] = "Git LFS pointer"
    write_bytes(audio / "1092_DFA_DIS_XX.wav", b"")
    tree.rejected["1092_DFA_DIS_XX"] = "is empty"
    (video / "1093_DFA_FEA_XX.flv").unlink()
    tree.rejected["1093_DFA_FEA_XX"] = "VideoFlash/1093_DFA_FEA_XX.flv is missing"
    (audio / "1094_DFA_HAP_XX.wav").unlink()
    tree.rejected["1094_DFA_HAP_XX"] = "AudioWAV/1094_DFA_HAP_XX.wav is missing"
    write_wav(audio / "1095_DFA_BOR_XX.wav")
    tree.rejected["1095_DFA_BOR_XX"] = "'BOR'"
    write_wav(audio / "notes.wav")
    tree.rejected["AudioWAV/notes.wav"] = "is not named"
    write_wav(audio / "1091_DFA_ANG_XX (1).wav")
    tree.rejected["AudioWAV/1091_DFA_ANG_XX (1).wav"] = "is not named"
    write_bytes(video / "1096_DFA_ANG_XX.FLV", b"a video")
    tree.rejected["1096_DFA_ANG_XX"] = "VideoFlash/1096_DFA_ANG_XX.FLV is not named *.flv; rename"
    write_wav(audio / "1096_DFA_ANG_XX.wav")
    write_bytes(audio / "._1001_DFA_ANG_XX.wav", b"\0\5\26\7")


# AVE


@dataclass
class _AveFiles:
    annotations: list[str]
    own: dict[str, list[str]]


def _ave(tree, per_class):
    files = _AveFiles([], {"trainSet.txt": [], "valSet.txt": [], "testSet.txt": []})
    for index in range(per_class * len(CATEGORIES)):
        category = CATEGORIES[index % len(CATEGORIES)]
        part = ("trainSet.txt", "valSet.txt", "testSet.txt")[(0, 0, 0, 1, 2)[index % 5]]
        _ave_video(tree, f"-Mini_{index:05d}", index % len(CATEGORIES))
        _ave_line(tree, files, f"-Mini_{index:05d}", category, part)
    # No mishap: 45 videos of the dataset have several categories.
    _ave_line(tree, files, "-Mini_00002", "Ukulele", "trainSet.txt")
    _ave_write(tree, files)
    return files


def _ave_video(tree, video, class_index=0, **options):
    write_video(tree.raw / f"AVE/{video}.mp4", class_index, **options)


def _ave_line(tree, files, video, category, part=None):
    line = f"{category}&{video}&good&0&10"
    files.annotations.append(line)
    if part is not None:
        files.own[part].append(line)
    tree.samples[f"{video}:{category}"] = category


def _ave_write(tree, files):
    lines = ["Category&VideoID&Quality&StartTime&EndTime", *files.annotations]
    write_bytes(tree.raw / "Annotations.txt", ("\n".join(lines) + "\n").encode())
    for name, own in files.own.items():
        write_bytes(tree.raw / name, ("\n".join(own) + "\n").encode())


def _odd_ave(tree, files):
    _ave_line(tree, files, "gone_video0", "Bark")
    tree.rejected["gone_video0:Bark"] = "AVE/gone_video0.mp4 is missing"
    _ave_video(tree, "lost_label0")
    tree.rejected["AVE/lost_label0.mp4"] = "no row in Annotations.txt"
    _ave_line(tree, files, "-Mini_00003", "Quack")
    tree.rejected["-Mini_00003:Quack"] = "'Quack'"
    for sample in ("gone_video0:Bark", "-Mini_00003:Quack"):
        del tree.samples[sample]
    files.annotations.append(files.annotations[0])
    tree.rejected[f"Annotations.txt:{len(files.annotations) + 1}"] = "annotated before"
    files.annotations.append("Bark&half a line")
    tree.rejected[f"Annotations.txt:{len(files.annotations) + 1}"] = "is not <category>"
    files.own["testSet.txt"].append(files.own["trainSet.txt"][0])
    tree.rejected[f"testSet.txt:{len(files.own['testSet.txt'])}"] = "already in trainSet.txt"
    files.own["valSet.txt"].append("Bark&unknown_vid&good&0&10")
    tree.rejected["valSet.txt:unknown_vid:Bark"] = "no row in Annotations.txt"
    for video, options, wrong in (
        ("mute_video0", {"sound": False}, "no sound"),
        ("blind_video", {"frames": 0}, "no frames"),
        ("short_video", {}, "truncated"),
    ):
        _ave_video(tree, video, **options)
        _ave_line(tree, files, video, "Bark", "trainSet.txt")
        tree.damaged[f"{video}:Bark"] = wrong
    truncate(tree.raw / "AVE/short_video.mp4")
    _ave_write(tree, files)


# MVSA-Single


def _mvsa(tree, per_class):
    lines = []
    for index in range(per_class * len(SENTIMENTS)):
        label = SENTIMENTS[index % len(SENTIMENTS)]
        # Neutral gives way to the other label, on whichever side it stands.
        stated = (f"{label},{label}", f"neutral,{label}", f"{label},neutral")[index % 3]
        _mvsa_pair(tree, lines, str(3 + 2 * index), stated, label, index % len(SENTIMENTS))
    _mvsa_pair(tree, lines, "2", "positive,negative", None)
    _mvsa_write(tree, lines)
    return lines


def _mvsa_pair(tree, lines, pair, stated, label, class_index=0, caption=None, mode="RGB"):
    lines.append(f"{pair}\t{stated}")
    write_image(tree.raw / f"data/{pair}.jpg", class_index, mode)
    if caption is None:
        caption = f"RT @someone: {stated.replace(',', ' and ')} http://t.co/{pair} #mini\n".encode()
    write_bytes(tree.raw / f"data/{pair}.txt", caption)
    if label is not None:
        tree.samples[pair] = label


def _mvsa_write(tree, lines):
    write_bytes(
        tree.raw / "labelResultAll.txt", ("\r\n".join(["ID\ttext,image", *lines]) + "\r\n").encode()
    )


def _odd_mvsa(tree, lines):
    data = tree.raw / "data"
    both = "positive,positive"
    _mvsa_pair(tree, lines, "5001", both, "positive", caption="RT @so: cut… ".encode("gb18030"))
    tree.unusual["5001"] = "caption in GB18030"
    _mvsa_pair(tree, lines, "5002", both, "positive", caption="\ufeffnaïve ☺\n".encode())
    tree.unusual["5002"] = "byte order mark"
    for pair, mode in (("5003", "L"), ("5004", "CMYK"), ("5005", "P"), ("5006", "RGBA")):
        _mvsa_pair(tree, lines, pair, both, "positive", mode=mode)
        tree.unusual[pair] = f"picture of mode {mode}"
    _mvsa_pair(tree, lines, "5010", both, "positive")
    truncate(data / "5010.jpg", 0.6)
    tree.damaged["5010"] = "truncated picture"
    for pair in ("5011", "5012", "5013", "5014"):
        _mvsa_pair(tree, lines, pair, both, None)
    (data / "5011.jpg").unlink()
    tree.rejected["5011"] = "data/5011.jpg is missing"
    (data / "5012.txt").unlink()
    tree.rejected["5012"] = "data/5012.txt is missing"
    write_bytes(data / "5013.jpg", LFS_POINTER)
    tree.rejected["5013"] = "Git LFS pointer"
    write_bytes(data / "5014.txt", b"  \n")
    tree.rejected["5014"] = "has no caption"
    _mvsa_pair(tree, lines, "5015", "positive,angry", None)
    tree.rejected["5015"] = "'angry'"
    lines.append(f"5001\t{both}")
    tree.rejected[f"labelResultAll.txt:{len(lines) + 1}"] = "has a label before"
    lines.append("5016 positive")
    tree.rejected[f"labelResultAll.txt:{len(lines) + 1}"] = "is not <id>"
    write_image(data / "5017.jpg")
    tree.rejected["data/5017.jpg"] = "no row in labelResultAll.txt"
    write_bytes(data / "5018.txt", b"a caption alone")
    tree.rejected["data/5018.txt"] = "no row in labelResultAll.txt"
    _mvsa_write(tree, lines)


# IEMOCAP


@dataclass
class _Dialogue:
    session: str
    name: str
    evaluation: list[str] = field(default_factory=list)
    transcript: list[str] = field(default_factory=list)
    seconds: float = 0.0


def _iemocap(tree, per_class):
    dialogues = []
    for number, session in enumerate(SESSIONS, 1):
        for half, name in enumerate((f"Ses0{number}F_impro01", f"Ses0{number}M_script01_1")):
            dialogue = _Dialogue(session, name)
            for index in range(half, per_class * len(IEMOCAP_EMOTIONS), 2):
                label = IEMOCAP_EMOTIONS[index % len(IEMOCAP_EMOTIONS)]
                _utterance(tree, dialogue, f"{name}_F{index:03d}", label)
            _utterance(tree, dialogue, f"{name}_M000", "xxx")
            _iemocap_write(tree, dialogue)
            dialogues.append(dialogue)
    return dialogues


def _utterance(tree, dialogue, name, label, text="Well -- I said: all right.", seconds=1.0):
    start, end = dialogue.seconds, dialogue.seconds + seconds
    dialogue.seconds = max(dialogue.seconds, end) + 0.1
    dialogue.evaluation.append(
        f"[{start:.4f} - {end:.4f}]\t{name}\t{label}\t[2.5000, 2.5000, 2.5000]"
    )
    if text is not None:
        dialogue.transcript.append(f"{name} [{start:08.4f}-{end:08.4f}]: {text}")
    if label in IEMOCAP_EMOTIONS:
        tree.samples[name] = label


def _iemocap_write(tree, dialogue, video=True):
    root = tree.raw / dialogue.session
    votes = ["C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  2;\t()", ""]
    lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    for line in dialogue.evaluation:
        lines += [line, *votes]
    folder = root / "dialog"
    write_bytes(folder / f"EmoEvaluation/{dialogue.name}.txt", "\n".join(lines).encode())
    transcript = "\n".join(dialogue.transcript) + "\n"
    write_bytes(folder / f"transcriptions/{dialogue.name}.txt", transcript.encode())
    for line in dialogue.evaluation:
        if line.startswith("[") and "\tSes" in line:
            name = line.split("\t")[1]
            write_wav(root / f"sentences/wav/{dialogue.name}/{name}.wav")
    if video:
        path = folder / f"avi/DivX/{dialogue.name}.avi"
        write_video(path, seconds=dialogue.seconds + 0.5, channels=2)


def _odd_iemocap(tree, dialogues):
    dialogue = dialogues[0]
    name = dialogue.name
    _utterance(tree, dialogue, f"{name}_F901", "happyish")
    tree.rejected[f"{name}_F901"] = "'happyish'"
    _utterance(tree, dialogue, f"{name}_F902", "neu", text=None)
    tree.rejected[f"{name}_F902"] = "no text"
    _utterance(tree, dialogue, f"{name}_F903", "neu", seconds=-0.5)
    tree.rejected[f"{name}_F903"] = "before it starts"
    for number in ("902", "903"):
        del tree.samples[f"{name}_F{number}"]
    dialogue.evaluation.append(dialogue.evaluation[0])
    line = 3 + 4 * (len(dialogue.evaluation) - 1)
    source = f"{dialogue.session}/dialog/EmoEvaluation/{name}.txt"
    tree.rejected[f"{source}:{line}"] = "annotated before"
    dialogue.evaluation.append("[a moment - later] nobody")
    tree.rejected[f"{source}:{line + 4}"] = "is not [<start>"
    dialogue.transcript += ["M: what?", "[LAUGHTER]", "Café, she said".strip()]
    dialogue.transcript.append(dialogue.transcript[0].replace("all right", "a second text"))
    _iemocap_write(tree, dialogue)
    for folder, suffix in (
        ("EmoEvaluation", "txt"),
        ("transcriptions", "txt"),
        ("avi/DivX", "avi"),
    ):
        path = tree.raw / f"{dialogue.session}/dialog/{folder}/._{name}.{suffix}"
        write_bytes(path, b"\0\5\26\7\0\2\0\0Mac OS X")
    _odd_iemocap_videos(tree)


def _odd_iemocap_videos(tree):
    lonely = _Dialogue("Session1", "Ses01F_impro02")
    _utterance(tree, lonely, "Ses01F_impro02_F000", "ang")
    _iemocap_write(tree, lonely, video=False)
    tree.rejected["Ses01F_impro02_F000"] = "Ses01F_impro02.avi is missing"
    del tree.samples["Ses01F_impro02_F000"]
    path = "Session2/dialog/avi/DivX/Ses02F_impro09.avi"
    write_video(tree.raw / path, seconds=1.0)
    tree.rejected[path] = "no row in Session2/dialog/EmoEvaluation"
    beyond = _Dialogue("Session3", "Ses03F_impro02")
    _utterance(tree, beyond, "Ses03F_impro02_F000", "sad")
    _iemocap_write(tree, beyond)
    beyond.seconds = 100.0
    _utterance(tree, beyond, "Ses03F_impro02_F001", "sad")
    _iemocap_write(tree, beyond, video=False)
    tree.damaged["Ses03F_impro02_F001"] = "starts after the recording ends"


# UR-FUNNY


@dataclass
class _Pickles:
    sentences: dict
    labels: dict
    folds: dict


def _urfunny(tree, per_class):
    pickles = _Pickles({}, {}, {"train": [], "dev": [], "test": []})
    for index in range(2 * per_class):
        fold = ("train", "train", "dev", "train", "test", "train")[index % 6]
        _urfunny_clip(tree, pickles, 3 * index + 1, index % 2, fold)
    _urfunny_write(tree, pickles)
    return pickles


def _urfunny_clip(tree, pickles, clip, label, fold, **options):
    write_video(tree.raw / f"urfunny2_videos/{clip}.mp4", label, **options)
    pickles.sentences[clip] = {
        "punchline_sentence": f"and that is {'not ' * label}the end of clip {clip}",
        "context_sentences": ["so i went there", "and i looked"],
        "punchline_features": [4, 8, 15],
        "context_features": [[16], [23, 42]],
    }
    pickles.labels[clip] = label
    if fold is not None:
        pickles.folds[fold].append(clip)
    tree.samples[str(clip)] = ("NOTFUNNY", "FUNNY")[label]


def _urfunny_write(tree, pickles):
    for name, value in (
        ("language_sdk.pkl", pickles.sentences),
        ("humor_label_sdk.pkl", pickles.labels),
        ("data_folds.pkl", pickles.folds),
    ):
        write_bytes(tree.raw / name, pickle.dumps(value, protocol=3))


def _odd_urfunny(tree, pickles):
    for clip in range(9001, 9008):
        _urfunny_clip(tree, pickles, clip, 1, "train", seconds=1.0)
        del tree.samples[str(clip)]
    (tree.raw / "urfunny2_videos/9001.mp4").unlink()
    tree.rejected["9001"] = "urfunny2_videos/9001.mp4 is missing"
    del pickles.labels[9002]
    tree.rejected["9002"] = "has no label"
    pickles.labels[9003] = 2
    tree.rejected["9003"] = "label 2"
    del pickles.sentences[9004]["punchline_sentence"]
    tree.rejected["9004"] = "no punchline_sentence"
    pickles.folds["train"].remove(9005)
    tree.rejected["9005"] = "in no fold"
    pickles.folds["dev"].append(9006)
    tree.rejected["9006"] = "train and dev"
    write_bytes(tree.raw / "urfunny2_videos/9007.mp4", LFS_POINTER)
    tree.rejected["9007"] = "Git LFS pointer"
    pickles.sentences["clip 12"] = {"punchline_sentence": "no number"}
    tree.rejected["language_sdk.pkl:clip 12"] = "is no number"
    pickles.labels[9008] = 1
    tree.rejected["humor_label_sdk.pkl:9008"] = "no sentence"
    pickles.folds["test"].append(9009)
    tree.rejected["data_folds.pkl:9009"] = "no sentence"
    write_video(tree.raw / "urfunny2_videos/9010.mp4", seconds=1.0)
    tree.rejected["urfunny2_videos/9010.mp4"] = "no row in language_sdk.pkl"
    _urfunny_clip(tree, pickles, 9011, 1, "train")
    truncate(tree.raw / "urfunny2_videos/9011.mp4")
    tree.damaged["9011"] = "truncated video"
    _urfunny_clip(tree, pickles, 9012, 0, "train", frames=2)
    tree.unusual["9012"] = "two frames"
    _urfunny_write(tree, pickles)
