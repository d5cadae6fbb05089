"""Makes a listening test, a static web page, from folders of MIDI files; --analyse reads the listeners' answers.

  python -m launch.listening --outputs model=DIR truth=DIR loop=DIR --anchors=truth,loop --output=site
  python -m launch.listening --examples=docs/examples --anchors=truth,loop --output=site
  python -m launch.listening --analyse=answers --output=site

The first two write the page to site/, which can be published or opened from disk. They write the key from clips to systems
to site.key.json, which must stay private. The last reads that key, and writes its tables to site.results.md and .json.
launch.evaluate writes folders as in the first for every system and baseline, to midi/ in its --output. The second is the
released test: the shipped model, the truth and the loop on the prompts of docs/examples.md.
"""

import pathlib
import tempfile

from absl import flags

from launch._main import named_folders, run
from sage_jax.errors import UserError
from sage_jax.evaluation.listening import ListeningConfig, example_outputs, make_test
from sage_jax.evaluation.responses import analyse_test

OUTPUTS = flags.DEFINE_list("outputs", [], "Systems to compare: NAME=FOLDER of MIDI files, one after the other.")
EXAMPLES = flags.DEFINE_string("examples", None, "A folder of launch.examples to compare the systems of, instead of --outputs.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the page; the key is written next to it.", required=True)
ANALYSE = flags.DEFINE_string("analyse", None, "Folder of answers to the test in --output: analyse them, make no test.")
CLIPS = flags.DEFINE_integer("clips", ListeningConfig.clips, "Maximum number of files of each folder.")
RATINGS = flags.DEFINE_integer("ratings", ListeningConfig.ratings, "Single clips that each listener rates.")
PAIRS = flags.DEFINE_integer("pairs", ListeningConfig.pairs, "Pairs of clips that each listener compares.")
PROMPT_BARS = flags.DEFINE_integer("prompt_bars", ListeningConfig.prompt_bars, "Bars of the prompt at the start of each file.")
ANCHORS = flags.DEFINE_list("anchors", [], "Systems of known quality, such as the reference and a baseline.")
TITLE = flags.DEFINE_string("title", ListeningConfig.title, "Title of the page.")
POST = flags.DEFINE_string(
    "post", "", "URL that accepts answers by POST (another origin needs CORS headers). Empty for download only."
)


def main() -> None:
    site = pathlib.Path(OUTPUT.value)
    if ANALYSE.value:
        print(analyse_test(pathlib.Path(ANALYSE.value), site))
        return
    if OUTPUTS.value and EXAMPLES.value:
        raise UserError("--examples and --outputs are both given; give one of them")
    numbers = dict(clips=CLIPS.value, ratings=RATINGS.value, pairs=PAIRS.value, prompt_bars=PROMPT_BARS.value)
    config = ListeningConfig(**numbers, anchors=tuple(ANCHORS.value), title=TITLE.value, post=POST.value)
    with tempfile.TemporaryDirectory() as folder:
        if EXAMPLES.value:
            outputs = example_outputs(pathlib.Path(EXAMPLES.value), pathlib.Path(folder))
        else:
            outputs = named_folders("--outputs", OUTPUTS.value)
        key = make_test(outputs, site, config)
    print(f"{site / 'index.html'} is the page; {key} maps clips to systems: keep it from listeners")


if __name__ == "__main__":
    run(main, positional="outputs")
