// Command argocd is what tests need of Argo CD in one binary: the application controller, the
// repository server and the helper that git asks for passwords, a Redis in memory, and a runner for
// the tests of health checks. The one that runs is named by the symlink that the binary is called
// through.
package main

import (
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/alicebob/miniredis/v2"
	controller "github.com/argoproj/argo-cd/v3/cmd/argocd-application-controller/commands"
	askpass "github.com/argoproj/argo-cd/v3/cmd/argocd-git-ask-pass/commands"
	reposerver "github.com/argoproj/argo-cd/v3/cmd/argocd-repo-server/commands"
	"github.com/spf13/cobra"
)

var programs = map[string]func() error{
	"argocd-application-controller": run(controller.NewCommand),
	"argocd-repo-server":            run(reposerver.NewCommand),
	"argocd-git-ask-pass":           run(askpass.NewCommand),
	"argocd-health-test":            func() error { return testHealthChecks(os.Args[1:]) },
	"argocd-redis":                  func() error { return serveRedis(os.Args[1:]) },
}

func main() {
	program, ok := programs[filepath.Base(os.Args[0])]
	if !ok {
		names := strings.Join(slices.Sorted(maps.Keys(programs)), ", ")
		fmt.Fprintf(os.Stderr, "argocd: call it through a symlink named %s\n", names)
		os.Exit(2)
	}
	if err := program(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(command func() *cobra.Command) func() error {
	return func() error { return command().Execute() }
}

// Argo CD keeps in Redis only what it can compute again. This one needs no package, no port that
// somebody else's may have, and ends with the test.
func serveRedis(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("argocd-redis: its only argument is the address to listen at")
	}
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(arguments[0]); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	<-end
	server.Close()
	return nil
}
