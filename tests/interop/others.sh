#!/bin/sh
# Other tools read what we write: TransformerLens, nnsight, llama.cpp's converter; a virtual environment each.
#   sh tests/interop/others.sh FOLDER     needs 8 GB there and the network of pip; about 10 minutes on 2 idle cores
# Ours (.venv) writes the demo model, compressed, with what it computes from it; each tool then prints one
# JSON line with its largest relative differences. A line beyond its limit ends this with an error.
set -eu
folder=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."
ours=$PWD/.venv/bin/python
export OMP_NUM_THREADS=1
venv() {  # NAME PACKAGE...
    name=$1; shift
    [ -d "$folder/$name" ] || python3 -m venv "$folder/$name"
    "$folder/$name/bin/pip" install -q --disable-pip-version-check "$@"
}
venv lens torch==2.13.0 transformer-lens==4.3.0 sentencepiece
venv nnsight torch==2.13.0 transformers==5.23.0 accelerate nnsight==0.8.1
# The converter is not on PyPI by itself; the bindings' source has it, and is not built here.
source=$folder/llama_cpp_python-0.3.36
[ -d "$source" ] || {
    "$ours" -m pip download -q --no-deps --no-binary :all: -d "$folder" llama-cpp-python==0.3.36
    tar xzf "$source.tar.gz" -C "$folder"
}
cpp=$source/vendor/llama.cpp

export HF_HUB_OFFLINE=1
[ -f "$folder/work/reference.safetensors" ] || {
    mkdir -p "$folder/work"
    "$ours" tests/interop/others/export.py "$folder/work"
}
cd tests/interop/others
"$folder/lens/bin/python" lens.py "$folder/work"
"$folder/nnsight/bin/python" nns.py "$folder/work"
convert() { "$folder/lens/bin/python" "$cpp/$1" --outtype f32 --outfile "$folder/work/$2" "$3" ${4+--base "$4"}; }
convert convert_hf_to_gguf.py dense.gguf "$folder/work/dense"
convert convert_lora_to_gguf.py adapter.gguf "$folder/work/lora/adapter" "$folder/work/lora/base"
"$ours" read_gguf.py "$folder/work"
