"""The whole job at true size, before anyone's data or GPU hours are spent: planted inputs in, time and memory out.

Every stage after embedding runs as it is; what a GPU is for (training, scoring) runs on a seeded sample with the
extrapolated time beside it. Above the stages, which it runs; never the room of anything that a real run needs.
"""
