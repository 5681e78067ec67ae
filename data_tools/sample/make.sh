#!/bin/sh
# Makes the sample with mgsym alone: four glasses, labelled, one of them twice. Hours, most of
# them for 18,766 searches (about 100 minutes on two cores).
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

label() { # glass, seed, name in the sample, how many searches
    glass=glasses/Cu64Zr36_$1.xyz seed=$2 name=$3
    shift 3
    mgsym label "$glass" --seed "$seed" "$@" --slots 64 --jobs 2 \
        --resume --overwrite -o "labelled_$name.xyz"
}
label 1e13_seed21 1 train_a --events 4 --searches 16
label 1e13_seed21 2 train_a_again --atoms random:250 --events 3 --searches 12
label 1e14_seed21 1 train_b --events 3 --searches 12
label 1e13_seed22 1 validation --atoms random:250 --searches 16
label 1e14_seed22 1 test --atoms random:250 --searches 20
python -m mgsym.data_tools.sample.make .
