// Reads a compose file as Docker Compose does (schema, variables, references between services) and
// prints it as JSON; compose-go is the library that Docker Compose itself reads files with.
//
// Usage: compose FILE, with variables from the environment.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithOsEnv, cli.WithResolvedPaths(false))
	if err == nil {
		project, loading := options.LoadProject(context.Background())
		if err = loading; err == nil {
			var text []byte
			if text, err = project.MarshalJSON(); err == nil {
				fmt.Println(string(text))
				return
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
