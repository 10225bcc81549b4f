{{/* Name of the operator's objects; what others add to it has room in the 63 characters of a Service. */}}
{{- define "arlow.name" -}}
{{ printf "%s-operator" .Release.Name | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- define "arlow.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "arlow.name" .) }}
{{- end }}

{{/* Labels by which the operator's pods are found. */}}
{{- define "arlow.selector" -}}
app.kubernetes.io/name: arlow-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of every object; the chart's own win over commonLabels of the same names. */}}
{{- define "arlow.labels" -}}
{{- $own := include "arlow.selector" . | fromYaml }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") }}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service }}
{{- $_ := set $own "app.kubernetes.io/part-of" "arlow" }}
{{- merge $own .Values.commonLabels | toYaml }}
{{- end }}

{{/* Labels of the operator's pods. */}}
{{- define "arlow.podLabels" -}}
{{- merge (include "arlow.selector" . | fromYaml) .Values.commonLabels | toYaml }}
{{- end }}

{{/* An image's full name. Arguments: the root, and the image's name among the values. */}}
{{- define "arlow.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.image (index . 1) -}}
{{- with $root.Values.image.registry }}{{ . | trimSuffix "/" }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* Pod Security `restricted`, for a pod. */}}
{{- define "arlow.podSecurity" -}}
runAsNonRoot: true
{{- if not .Values.openshift }}
runAsUser: 65532
runAsGroup: 65532
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Pod Security `restricted`, for a container. */}}
{{- define "arlow.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The defaults of runs, as the operator reads them. */}}
{{- define "arlow.runDefaults" -}}
{{- $found := dict "doNotDisrupt" .Values.runs.doNotDisrupt "fixedIds" (not .Values.openshift) }}
{{- range $key := list "imagePullPolicy" "imagePullSecrets" "serviceAccountName" "storeEndpoint" "env" "caBundle" "labels" }}
{{- with index $.Values.runs $key }}{{ $_ := set $found $key . }}{{ end }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{/* Whether an object of Prometheus' operator is wanted and possible. Arguments: the root, the name of its switch, its kind. */}}
{{- define "arlow.monitored" -}}
{{- $root := index . 0 -}}
{{- if and (index $root.Values (index . 1)).enabled ($root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" (index . 2))) }}yes{{ end -}}
{{- end }}

{{/* Labels by which the pod of `helm test` is found. */}}
{{- define "arlow.testSelector" -}}
app.kubernetes.io/name: arlow-operator-test
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}
