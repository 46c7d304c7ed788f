# Completion for eplbctl and eplbd. It asks --help of the program, so that it never lags behind it.
# SPDX-License-Identifier: Apache-2.0

# The flags, and with "commands" the subcommands, in a help text.
_eplbd_words() {
  local kind=$1
  shift
  "$@" --help 2>/dev/null | awk -v kind="$kind" '
    /^[A-Za-z]/ { commands = /^Subcommands:/ }
    kind == "commands" && commands && /^  [a-z]/ { print $1 }
    kind == "flags" && /^ +-/ {
      while (match($0, /--[a-z][a-z-]*/)) {
        print substr($0, RSTART, RLENGTH)
        $0 = substr($0, RSTART + RLENGTH)
        if ($0 !~ /^,/) break
      }
    }'
}

_eplbd_complete() {
  local program=${COMP_WORDS[0]} current=${COMP_WORDS[COMP_CWORD]}
  local previous=${COMP_WORDS[COMP_CWORD - 1]} word path=("$program") words
  COMPREPLY=()
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ " $(_eplbd_words commands "${path[@]}" | tr '\n' ' ') " == *" $word "* ]]; then
      path+=("$word")
    fi
  done
  case "$previous" in
    --policy) words="incremental joint deepseek evolved" ;;
    --hierarchical) words="auto true false" ;;
    --format) words="json trtllm vllm-ascend npy" ;;
    --config | --socket | --trace | --loads | --current | --to | --timeline | --report | --picture | --curve-*-key | \
      import | diff)
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return
      ;;
    mode) words="observe shadow active config" ;;
    *)
      words=$(_eplbd_words commands "${path[@]}")
      if [[ $current == -* || -z $words ]]; then words=$(_eplbd_words flags "${path[@]}"); fi
      ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _eplbd_complete eplbctl eplbd
