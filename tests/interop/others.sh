#!/bin/sh
# Other tools read what we write: TransformerLens, nnsight, llama.cpp; a virtual environment each.
#   sh tests/interop/others.sh FOLDER     needs 8 GB there, a C++ compiler and the network of pip; about 15 minutes
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
# llama.cpp with its converters is in the source of its Python bindings, and is built from there, in one process.
source=$folder/llama_cpp_python-0.3.36
[ -d "$source" ] || {
    "$ours" -m pip download -q --no-deps --no-binary :all: -d "$folder" llama-cpp-python==0.3.36
    tar xzf "$source.tar.gz" -C "$folder"
}
[ -d "$folder/llama" ] || {
    export CMAKE_ARGS=-DLLAVA_BUILD=OFF CMAKE_BUILD_PARALLEL_LEVEL=1
    venv llama "$source.tar.gz" safetensors
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
convert() {  # SCRIPT TYPE OUTPUT FOLDER [BASE]
    "$folder/lens/bin/python" "$cpp/$1" --outtype "$2" --outfile "$folder/work/$3" "$4" ${5+--base "$5"}
}
convert convert_hf_to_gguf.py f32 dense.gguf "$folder/work/dense"
convert convert_hf_to_gguf.py f16 dense-f16.gguf "$folder/work/dense"
convert convert_hf_to_gguf.py f32 base.gguf "$folder/work/lora/base"
convert convert_lora_to_gguf.py f32 adapter.gguf "$folder/work/lora/adapter" "$folder/work/lora/base"
"$ours" read_gguf.py "$folder/work"
"$folder/llama/bin/python" llama.py "$folder/work"
