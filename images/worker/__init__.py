"""The one program that every environment runs: a shard comes in, arrays and events go out.

Python 3.7+, standard library and numpy only; the host imports it, it never imports the host.
What is named here is what a model of a user's own is made of.
"""

from worker.extractor import Arrays as Arrays
from worker.extractor import Batch as Batch
from worker.extractor import Checkpoint as Checkpoint
from worker.extractor import Extractor as Extractor
from worker.extractor import Output as Output
from worker.extractor import Stream as Stream
from worker.extractor import WholeFile as WholeFile
from worker.extractor import Windows as Windows
from worker.extractor import between as between
from worker.extractor import choice as choice
from worker.request import WindowChoice as WindowChoice
