# SPDX-License-Identifier: GPL-2.0
_scalectl() {
	local word=${COMP_WORDS[COMP_CWORD]}
	mapfile -t COMPREPLY < <(compgen -W "$(scalectl complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2> /dev/null)" -- "$word")
}
complete -F _scalectl scalectl
