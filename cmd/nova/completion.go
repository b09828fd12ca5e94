package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints a script that completes commands and flags, made of the command
// line's own model.
func (c completionCmd) Run(app *cli, k *kong.Kong) error {
	var names []string
	flags := map[string][]string{}
	for _, n := range k.Model.Children {
		if n.Hidden {
			continue
		}
		names = append(names, n.Name)
		for _, group := range n.AllFlags(true) {
			for _, f := range group {
				flags[n.Name] = append(flags[n.Name], "--"+f.Name)
			}
		}
	}
	if app.JSON {
		return json.NewEncoder(os.Stdout).Encode(flags)
	}
	switch c.Shell {
	case "fish":
		for _, n := range names {
			fmt.Printf("complete -c nova -n __fish_use_subcommand -f -a %s\n", n)
			for _, f := range flags[n] {
				fmt.Printf("complete -c nova -n '__fish_seen_subcommand_from %s' -l %s\n", n, strings.TrimPrefix(f, "--"))
			}
		}
		return nil
	case "zsh":
		fmt.Println("#compdef nova\nautoload -U +X bashcompinit && bashcompinit")
	}
	fmt.Printf(`_nova() {
  local cur=${COMP_WORDS[COMP_CWORD]}
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "%s" -- "$cur"))
    return
  fi
  case "${COMP_WORDS[1]}" in
`, strings.Join(names, " "))
	for _, n := range names {
		fmt.Printf("  %s) COMPREPLY=($(compgen -W \"%s\" -- \"$cur\") $(compgen -f -- \"$cur\")) ;;\n", n, strings.Join(flags[n], " "))
	}
	fmt.Println("  esac\n}\ncomplete -F _nova nova")
	return nil
}
