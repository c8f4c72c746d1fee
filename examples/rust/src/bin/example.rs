//! Runs a script in a workspace of a repository, shows what it prints, commits and pushes what it
//! changed.
//!
//! Usage: `example REPOSITORY SCRIPT`, with COVE_TOKEN, and COVE_ADDRESS unless it is
//! 127.0.0.1:7420.

use std::{
    env,
    error::Error,
    io::{Write, stdout},
    process::ExitCode,
};

use cove_example::proto::cove::{
    executor::v1::{Execution, ExecutionSpec, Exit, exit::Reason},
    gateway::v1::{
        CreateCommitRequest, CreateWorkspaceRequest, DeleteWorkspaceRequest, PushBranchRequest,
        StartExecutionRequest, Workspace,
    },
    git::v1::Commit,
    registry::v1::EnvironmentSpec,
};
use cove_example::{Cove, again, once};
use tonic::Status;
use tonic_types::StatusExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(url), Some(script)) = (arguments.next(), arguments.next()) else {
        return Err("usage: example REPOSITORY SCRIPT".into());
    };
    let address = env::var("COVE_ADDRESS").unwrap_or("127.0.0.1:7420".into());
    let cove = Cove::new(&address, &env::var("COVE_TOKEN")?)?;
    let id = format!("rust-{}", &once()[..8]);
    let ran = run(&cove, &id, &url, &script).await;
    let delete = DeleteWorkspaceRequest {
        name: format!("workspaces/{id}"),
        force: true,
        allow_missing: true,
        request_id: once(),
        ..Default::default()
    };
    let workspaces = &cove.workspaces;
    again(async || workspaces.clone().delete_workspace(delete.clone()).await).await?;
    Ok(match ran?.reason {
        Some(Reason::Code(code)) => ExitCode::from(code as u8),
        _ => ExitCode::FAILURE, // A signal, a timeout or a limit ended it.
    })
}

/// Returns how the script ended.
async fn run(cove: &Cove, id: &str, url: &str, script: &str) -> Result<Exit, Status> {
    let name = format!("workspaces/{id}");
    let Cove {
        workspaces,
        executions,
        source,
        ..
    } = cove;
    // snippet:begin
    // A request is the same until it is answered, and is carried out once.
    let create = create_request(id, url);
    again(async || workspaces.clone().create_workspace(create.clone()).await).await?;
    let start = start_request(&name, script);
    let started = again(async || executions.clone().start_execution(start.clone()).await).await?;
    let execution = started.execution.unwrap_or_default().name;
    let write = |data: &[u8]| stdout().write_all(data);
    let (exit, _) = cove.follow(&execution, write).await?; // By offset.
    // snippet:end
    let commit = commit_request(&name, script);
    match again(async || source.clone().create_commit(commit.clone()).await).await {
        Ok(made) => eprintln!("commit {}", made.commit.unwrap_or_default().id),
        Err(failure) if reason(&failure) == "ERROR_REASON_NOTHING_TO_COMMIT" => {
            eprintln!("nothing to commit");
            return Ok(exit);
        }
        Err(failure) => return Err(failure),
    }
    let push = PushBranchRequest {
        name,
        request_id: once(),
        ..Default::default()
    };
    again(async || source.clone().push_branch(push.clone()).await).await?;
    Ok(exit)
}

/// What to branch on in a failure; empty where no server of Cove was reached.
fn reason(failure: &Status) -> String {
    let info = failure.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

fn create_request(id: &str, url: &str) -> CreateWorkspaceRequest {
    let spec = EnvironmentSpec {
        repository: url.into(),
        ..Default::default()
    };
    CreateWorkspaceRequest {
        workspace_id: id.into(),
        workspace: Some(Workspace {
            spec: Some(spec),
            ..Default::default()
        }),
        request_id: once(),
        ..Default::default()
    }
}

fn start_request(parent: &str, script: &str) -> StartExecutionRequest {
    let spec = ExecutionSpec {
        script: script.into(),
        ..Default::default()
    };
    StartExecutionRequest {
        parent: parent.into(),
        execution: Some(Execution {
            spec: Some(spec),
            ..Default::default()
        }),
        request_id: once(),
        ..Default::default()
    }
}

fn commit_request(parent: &str, message: &str) -> CreateCommitRequest {
    CreateCommitRequest {
        parent: parent.into(),
        commit: Some(Commit {
            message: message.into(),
            ..Default::default()
        }),
        request_id: once(),
        ..Default::default()
    }
}
