package leasecli

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// The scripts ask the tool itself what may follow, by a flag that its library knows.
const (
	bashCompletion = `_benthos_kinesis_leases() {
  local current="${COMP_WORDS[COMP_CWORD]}"
  [ "${COMP_WORDS[1]}" = leases ] || { [ "$COMP_CWORD" -eq 1 ] && COMPREPLY=($(compgen -W leases -- "$current")); return; }
  local words=("${COMP_WORDS[@]:0:$COMP_CWORD}")
  [[ "$current" == -* ]] && words+=("$current")
  COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$current"))
}
complete -o bashdefault -o default -F _benthos_kinesis_leases benthos-kinesis
`
	zshCompletion = `#compdef benthos-kinesis
autoload -U +X bashcompinit && bashcompinit
` + bashCompletion
)

func (t *tool) completion() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the script that completes these commands in a shell",
		ArgsUsage: "bash|zsh",
		Action: func(c *cli.Context) error {
			script, ok := map[string]string{"bash": bashCompletion, "zsh": zshCompletion}[c.Args().First()]
			if !ok || c.Args().Len() != 1 {
				return usage("`completion` takes a shell: write `completion bash` or `completion zsh`")
			}
			_, err := fmt.Fprint(t.out, script)
			return err
		},
	}
}
