"""Makes a listening test, a static web page, from folders of MIDI files; and reads what listeners answered.

  python -m launch.listening --outputs model=DIR truth=DIR loop=DIR --anchors=truth,loop --output=site
  python -m launch.listening --analyse=answers --output=site

The first writes the page to site/, to be put on any web server or opened from disk, and site.key.json beside it, which says which
clip is whose and stays at home. The second takes that key, and writes its tables to site.results.md and .json.
launch.evaluate writes such folders, of every system and floor, to midi/ in its --output.
"""

import json
import pathlib

from absl import flags

from launch._main import named_folders, run
from sage_jax.errors import UserError
from sage_jax.evaluation.answers import analyse, load_answers, summary
from sage_jax.evaluation.listening import ListeningConfig, key_path, make_test
from sage_jax.evaluation.results import plain
from sage_jax.files import replacing

OUTPUTS = flags.DEFINE_list("outputs", [], "Systems to be heard: NAME=FOLDER of MIDI files, one after the other.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the page; the key stands beside it.", required=True)
ANALYSE = flags.DEFINE_string("analyse", None, "Folder with files of answers to the test of --output.")
CLIPS = flags.DEFINE_integer("clips", ListeningConfig.clips, "Files of each folder that are used, at most.")
RATINGS = flags.DEFINE_integer("ratings", ListeningConfig.ratings, "Single clips that a listener rates.")
PAIRS = flags.DEFINE_integer("pairs", ListeningConfig.pairs, "Pairs of clips that a listener compares.")
PROMPT_BARS = flags.DEFINE_integer("prompt_bars", ListeningConfig.prompt_bars, "Bars that were given.")
ANCHORS = flags.DEFINE_list("anchors", [], "Systems of known quality, such as the true continuation and a floor.")
TITLE = flags.DEFINE_string("title", ListeningConfig.title, "What the page is called.")
POST = flags.DEFINE_string("post", "", "Address that takes answers by POST (from another origin: with CORS headers); without it they are downloaded.")


def main() -> None:
    site = pathlib.Path(OUTPUT.value)
    if ANALYSE.value:
        path = key_path(site)
        try:
            key = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{path} can't be read ({error}); give the --output that the test was made with") from error
        found = analyse(load_answers(pathlib.Path(ANALYSE.value), key), key)
        for suffix, text in ((".md", summary(found)), (".json", json.dumps(plain(found), indent=1))):
            with replacing(path.with_name(f"{site.resolve().name}.results{suffix}")) as temporary:
                temporary.write_text(text + "\n")
        print(summary(found))
        return
    if not OUTPUTS.value:
        raise UserError("--outputs: give a folder for each system, such as --outputs model=takes truth=originals")
    outputs = named_folders("--outputs", OUTPUTS.value)
    numbers = dict(clips=CLIPS.value, ratings=RATINGS.value, pairs=PAIRS.value, prompt_bars=PROMPT_BARS.value)
    config = ListeningConfig(**numbers, anchors=tuple(ANCHORS.value), title=TITLE.value, post=POST.value)
    key = make_test(outputs, site, config)
    print(f"{site / 'index.html'} is the page; {key} says which clip is whose: keep it from listeners")


if __name__ == "__main__":
    run(main, positional="outputs")
