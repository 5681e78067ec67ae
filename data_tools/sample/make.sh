#!/bin/sh
# Makes a sample with mgsym alone: four glasses, labelled, one of them twice. (README.md tells how
# the glasses that ship now were made.)
#
#     MGSYM_POTENTIAL=Cu-Zr_2.eam.fs data_tools/sample/make.sh FOLDER
#
# FOLDER keeps everything on the way; started again, quench and label go on where they were.
set -eu
cd "$1"
if [ -e glasses/quench.checkpoint ]; then resume=--resume; else resume=; fi
if [ ! -e glasses/quench.csv ] || [ -n "$resume" ]; then
    mgsym quench --composition Cu64Zr36 --atoms 500 --rate 1e13 --rate 1e14 --seeds 21:23 \
        --melt 50 $resume -o glasses
fi

label() { # glass, searches an atom, seed, name in the sample
    mgsym label "glasses/Cu64Zr36_$1.xyz" --searches "$2" --seed "$3" --slots 64 --jobs 2 \
        --resume --overwrite -o "labelled_$4.xyz"
}
label 1e13_seed21 12 1 train_a
label 1e13_seed21 12 2 train_a_again
label 1e14_seed21 12 1 train_b
label 1e13_seed22 12 1 validation
label 1e14_seed22 12 1 test
python -m mgsym.data_tools.sample.make .
