"""Where scripts of the published procedure import its classes from; they are at home in `prosody_toolkit`."""

from prosody_toolkit import features as features
from prosody_toolkit import plots as plots
from prosody_toolkit.clustering import ClusteringPipeline as ClusteringPipeline
from prosody_toolkit.encoder import ProsodicSequenceEncoder as ProsodicSequenceEncoder
from prosody_toolkit.extraction import ProsodicFeatureExtractor as ProsodicFeatureExtractor
from prosody_toolkit.sequences import ProsodicClusterSequences as ProsodicClusterSequences
from prosody_toolkit.vectors import ArrayClass as ArrayClass
