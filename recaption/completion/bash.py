"""bash's script: a template of string.Template, in which $$ is a dollar sign."""

CASE = '    {name}) words="{words}" ;;'
OR = "|"
SCRIPT = r"""# Completion of recaption for bash, made by `recaption completion bash`.

_recaption_words() {  # the words after one command, key or group
  local words=""
  case $$1 in
$choices
  esac
  printf '%s' "$$words"
}

_recaption_options() {
  local words=""
  case $$1 in
$options
  esac
  printf '%s' "$$words"
}

_recaption_presets() {  # GROUP DIR: a user's own presets
  local file
  for file in "$$2/$$1"/*.yaml; do
    [ -e "$$file" ] && file=$${file##*/} && printf '%s ' "$${file%.yaml}"
  done
}

_recaption() {
  # The word at the cursor as it was typed: bash itself splits words at = and :
  local line=$${COMP_LINE:0:COMP_POINT} typed word directory="" previous="" words="" head="" i
  local -a all
  read -r -a all <<<"$$line"
  typed=$${line##*[[:space:]]}
  COMPREPLY=()
  for word in "$${all[@]:1}"; do
    case $$word in
      --config-dir=*) directory=$${word#*=} ;;
    esac
    case $$previous in
      --config-dir | -cd) directory=$$word ;;
    esac
    previous=$$word
  done
  case $$directory in
    "~/"*) directory=$$HOME/$${directory#"~/"} ;;
  esac
  local command=$${all[1]:-}
  if [ "$${#all[@]}" -lt 2 ] || { [ "$${#all[@]}" -eq 2 ] && [ -n "$$typed" ]; }; then
    words="$commands --help --version"
  elif [ "$$command" = completion ] && [ "$${typed#-}" = "$$typed" ]; then
    words="$shells"
  elif [ "$${typed#-}" != "$$typed" ]; then
    words=$$(_recaption_options "$$command")
  else
    case $$command in
      $keyed)
        case $$typed in
          *=*)
            local key=$${typed%%=*}
            head="$$key="
            words=$$(_recaption_words "$$key")
            case $$key in
              $groups) [ -z "$$directory" ] || words+=" $$(_recaption_presets "$$key" "$$directory")" ;;
            esac
            case $${typed#*=} in
              *,*) head="$${typed%,*}," ;; # a sweep's further value
            esac
            ;;
          *)
            case $$command$$typed in
              $placed) ;; # a folder
              *) words="$keys" ;;
            esac
            ;;
        esac
        ;;
    esac
  fi
  local rest=$${typed#"$$head"}
  for word in $$(compgen -W "$$words" -- "$$rest"); do
    COMPREPLY+=("$$head$$word")
  done
  # readline replaces only what comes after the last character at which it splits
  if [[ $$typed == *=* && $$COMP_WORDBREAKS == *=* ]]; then
    for i in "$${!COMPREPLY[@]}"; do COMPREPLY[i]=$${COMPREPLY[i]#*=}; done
  fi
  if [ "$${#COMPREPLY[@]}" -gt 0 ] && [[ $${COMPREPLY[0]} == *= ]]; then
    compopt -o nospace 2>/dev/null
  fi
}

complete -o bashdefault -o default -F _recaption recaption
"""
