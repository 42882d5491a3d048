package image

import (
	"encoding/json"
	"errors"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

func TestApplyChanges(t *testing.T) {
	for change, want := range map[string]string{
		`CMD ["a","b c"]`:             `{"Env":["P=1"],"Cmd":["a","b c"]}`,
		`cmd echo "$X" | cat`:         `{"Env":["P=1"],"Cmd":["/bin/sh","-c","echo \"$X\" | cat"]}`,
		`CMD []`:                      `{"Env":["P=1"]}`,
		`ENTRYPOINT /run`:             `{"Env":["P=1"],"Entrypoint":["/bin/sh","-c","/run"]}`,
		`ENV A=1 B="x y" C=a\ b`:      `{"Env":["P=1","A=1","B=x y","C=a b"]}`,
		`ENV P 2 3`:                   `{"Env":["P=2 3"]}`,
		`ENV P=`:                      `{"Env":["P="]}`,
		`EXPOSE 80 9000-9001/udp`:     `{"ExposedPorts":{"80/tcp":{},"9000/udp":{},"9001/udp":{}},"Env":["P=1"]}`,
		`LABEL a.b='c d' e=f`:         `{"Env":["P=1"],"Labels":{"a.b":"c d","e":"f"}}`,
		`HEALTHCHECK CMD test -e /ok`: `{"Env":["P=1"],"Healthcheck":{"Test":["CMD-SHELL","test -e /ok"]}}`,
		`HEALTHCHECK NONE`:            `{"Env":["P=1"],"Healthcheck":{"Test":["NONE"]}}`,
		`HEALTHCHECK --interval=2s --retries=4 CMD ["test", "x"]`: `{"Env":["P=1"],"Healthcheck":{"Test":["CMD","test","x"],"Interval":2000000000,"Retries":4}}`,
		`STOPSIGNAL SIGINT`:       `{"Env":["P=1"],"StopSignal":"SIGINT"}`,
		`USER 1:2`:                `{"User":"1:2","Env":["P=1"]}`,
		`VOLUME ["/a","/b"]`:      `{"Env":["P=1"],"Volumes":{"/a":{},"/b":{}}}`,
		`VOLUME /a /b`:            `{"Env":["P=1"],"Volumes":{"/a":{},"/b":{}}}`,
		`WORKDIR /w`:              `{"Env":["P=1"],"WorkingDir":"/w"}`,
		`WORKDIR w`:               `{"Env":["P=1"],"WorkingDir":"/w"}`,
		`ONBUILD RUN make all`:    `{"Env":["P=1"],"OnBuild":["RUN make all"]}`,
		`SHELL ["/bin/ash","-x"]`: `{"Env":["P=1"],"Shell":["/bin/ash","-x"]}`,
		`ONBUILD FROM x`:          "", `ONBUILD onbuild RUN x`: "", `SHELL /bin/ash`: "", `SHELL []`: "",
		`RUN x`: "", `FROM x`: "", `CMD`: "", ``: "", `ENV A`: "", `ENV A=1 B`: "", `ENV "A`: "",
		`EXPOSE 0`: "", `EXPOSE 70000`: "", `EXPOSE 80/http`: "", `EXPOSE 9-8`: "", `LABEL =x`: "",
	} {
		config := dockerspec.DockerOCIImageConfig{}
		config.Env = []string{"P=1"}
		err := ApplyChanges(&config, []string{change})
		b, _ := json.Marshal(config)
		if want == "" {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("%s: %s, %v", change, b, err)
			}
		} else if err != nil || string(b) != want {
			t.Errorf("%s: %s, %v\nwant %s", change, b, err, want)
		}
	}
}
